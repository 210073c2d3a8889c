"""Tokenizers without torch: the same ids and texts, and torch is there afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import paths

TEXTS = ["Hi there", " naïve  café\n\n", "<|user|>\nx<|end|>\n", "数学 🦙"]
ASK = """
import json, sys
{first}
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
ids = [tokenizer(text)["input_ids"] for text in json.loads(sys.argv[2])]
chat = tokenizer.apply_chat_template([{{"role": "user", "content": "Hi"}}], tokenize=False)
print(json.dumps([ids, [tokenizer.decode(each) for each in ids], chat, "torch" in sys.modules]))
import torch
print(torch.ones(2).sum().item())
"""


def asked(first: str, model: Path) -> tuple[list[object], str]:
    command = [sys.executable, "-c", ASK.format(first=first), str(model), json.dumps(TEXTS)]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found, torch_sum = done.stdout.splitlines()
    assert torch_sum == "2.0"
    return json.loads(found)[:3], json.loads(found)[3]


@pytest.mark.slow
def test_they_are_the_same_and_torch_is_there_afterwards(tiny: Path) -> None:
    without, imported = asked("from pipeline.text.tokenizers_only import *; import_without_torch()", tiny)
    assert not imported
    assert (without, True) == asked("import torch", tiny)
