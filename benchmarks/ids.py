"""Data files as token ids: the input of the benchmarks that compute with random weights of a real model's shapes.

    python benchmarks/ids.py phi3_ids.json --tokenizer models/phi3-medium \\
        pub30=data/sets/obqa.jsonl obqa500=data/sets/obqa-test.jsonl boolq500=data/sets/boolq-validation.jsonl

Writes {name: [[token ids of a prompt, tokens of its reference answer and its end], …]}; see `scripted.read_sets`.
The stand-in's tokenizer cuts text otherwise than Phi-3's, so its figures are of other lengths.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.dataset import records  # noqa: E402
from pipeline.text.chat_template import Prompts  # noqa: E402


def rows_of(file: Path, limit: int, tokenizer: Any) -> list[tuple[list[int], int]]:
    """Prompt ids and the count of answer tokens, of the first `limit` rows."""
    rows = records.read(file)[:limit]
    prompts = Prompts(tokenizer)([row.messages for row in rows])
    answers = [tokenizer(row.answer or "", add_special_tokens=False)["input_ids"] for row in rows]
    return [(prompt, len(answer) + 1) for prompt, answer in zip(prompts, answers, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("to", type=Path, help="the file to write")
    parser.add_argument("sets", nargs="+", help="NAME=FILE, a data file in the organiser's form")
    parser.add_argument("--tokenizer", required=True, help="a folder with the model's tokenizer")
    parser.add_argument("--limit", type=int, default=500, help="rows of a set at most")
    asked = parser.parse_args()
    from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds

    tokenizer = AutoTokenizer.from_pretrained(asked.tokenizer)
    found = {}
    for name, file in (each.split("=", 1) for each in asked.sets):
        found[name] = rows_of(Path(file), asked.limit, tokenizer)
        tokens = sum(len(prompt) for prompt, _ in found[name])
        print(f"{name}: {len(found[name])} prompts, {tokens:,} tokens", flush=True)
    asked.to.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
