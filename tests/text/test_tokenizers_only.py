"""Tokenizers without torch: the same ids, texts and answers, and torch is there afterwards."""

from __future__ import annotations

import json
import os
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
from pipeline.text import detokenize, generation_keys
from pipeline import text_generation
pipe = text_generation.load(sys.argv[1], device="cpu")
answers = pipe([[{{"role": "user", "content": text}}] for text in json.loads(sys.argv[2])], max_new_tokens=4)
print(json.dumps([
    str([detokenize.probe(), detokenize.probe([{{}}]), generation_keys.default_new_tokens({{}})]),
    [pipe.form == detokenize.probe(), pipe.end, pipe.prompts.renders, pipe.prompts.encodes, pipe.new_tokens],
    answers,
]))
print("torch._dynamo" in sys.modules)
"""


def asked(first: str, model: Path) -> tuple[list[object], bool, bool]:
    """Everything that is the same, whether torch was imported for it, and whether its compiler was."""
    command = [sys.executable, "-c", ASK.format(first=first), str(model), json.dumps(TEXTS)]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found, torch_sum, answered, compiler = done.stdout.splitlines()
    assert torch_sum == "2.0"
    *same, torch = json.loads(found)
    return [same, json.loads(answered)], torch, compiler == "True"


@pytest.mark.slow
def test_they_are_the_same_and_torch_is_there_afterwards(tiny: Path) -> None:
    first = "from pipeline.text.tokenizers_only import *; import_without_torch(PIPES_TEXTS)"
    without, torch, compiler = asked(first, tiny)
    assert (torch, compiler) == (False, False)
    assert asked("import torch", tiny) == (without, True, True)


def test_a_release_that_needs_torch_is_imported_with_it(tmp_path: Path) -> None:
    package = tmp_path / "transformers"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from transformers import part\nimport torch\nAutoTokenizer = torch.__name__\n"
    )
    (package / "part.py").touch()
    (tmp_path / "torch.py").touch()
    script = """
import sys
from pipeline.text.tokenizers_only import import_without_torch
import_without_torch()
assert not {"torch", "transformers", "transformers.part"} & set(sys.modules)
from transformers import AutoTokenizer
print(AutoTokenizer)
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=paths.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("torch\n", "")
