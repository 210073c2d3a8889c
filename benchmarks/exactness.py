"""How many rows differ between ours and transformers' pipe(), and between pipe() and itself at another batch size.

    python benchmarks/exactness.py --model models/standin --data data/sets/obqa-test.jsonl --dtype bfloat16

Three contenders answer the same file: ours, pipe() one prompt at a time, pipe() sixteen at a time. In
float32 all should agree; in bfloat16 the order of sums decides near ties, and the second line of the table
says how far pipe() agrees with itself. Prints the table of docs/exactness.md, and last a line of JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from transformers.utils import logging  # noqa: E402

from pipeline.accuracy import metrics  # noqa: E402
from pipeline.dataset import records  # noqa: E402
from pipeline.record import provenance  # noqa: E402
from pipeline.runs import engines  # noqa: E402

CONTENDERS = {"ours": None, "pipe-1": 1, "pipe-16": 16}
PAIRS = (("ours", "pipe-1"), ("pipe-16", "pipe-1"), ("ours", "pipe-16"))


def answer(name: str, options: argparse.Namespace, chats: list[Any]) -> dict[str, Any]:
    """All outputs and token ids of one contender."""
    batch_size = CONTENDERS[name]
    engine = "ours" if batch_size is None else "reference"
    pipe = engines.load(engine, options.model, dtype=options.dtype, device=options.device)
    pipe.warm_up()
    tokens: dict[int, list[int]] = {}
    start = time.perf_counter()
    outputs = pipe(
        chats,
        max_new_tokens=options.max_new_tokens,
        return_full_text=False,
        do_sample=False,
        batch_size=batch_size,
        on_answer=lambda answered: tokens.__setitem__(answered.index, answered.token_ids),
    )
    print(f"… {name}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    return {"outputs": outputs, "tokens": [tokens[index] for index in range(len(chats))]}


def difference(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Rows whose text or tokens differ, and where the first differing token of each is."""
    texts = [i for i, (x, y) in enumerate(zip(a["outputs"], b["outputs"], strict=True)) if x != y]
    places = {
        i: next(n for n, (s, t) in enumerate(zip_longest(x, y)) if s != t)
        for i, (x, y) in enumerate(zip(a["tokens"], b["tokens"], strict=True))
        if x != y
    }
    return {"texts": len(texts), "tokens": len(places), "first_differing_token": places}


def exact(outputs: list[Any], answers: list[str | None]) -> int:
    """How many are right by the organiser's rule."""
    pairs = zip(outputs, answers, strict=True)
    return sum(answer is not None and metrics.is_exact(out[0]["generated_text"], answer) for out, answer in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "standin"))
    parser.add_argument("--data", default=str(ROOT / "data" / "sets" / "obqa-test.jsonl"))
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--device", default=None)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--max-new-tokens", type=int, default=500)
    options = parser.parse_args()
    logging.set_verbosity_error()  # the reference's pipe warns at every call

    rows = records.read(Path(options.data))[: options.limit]
    chats, answers = [row.messages for row in rows], [row.answer for row in rows]
    found = {}
    for name in CONTENDERS:
        found[name] = answer(name, options, chats)
        gc.collect()
    environment = provenance.environment()
    where = f"{environment['gpu'] or environment['processor']}, torch {environment['packages']['torch']}"
    print(f"\n{Path(options.data).stem}, {len(rows)} rows, {options.dtype}, {where}")
    print(f"{'':<20}{'texts differ':>14}{'tokens differ':>15}")
    differences = {f"{a} and {b}": difference(found[a], found[b]) for a, b in PAIRS}
    for pair, counts in differences.items():
        print(f"{pair:<20}{counts['texts']:>14}{counts['tokens']:>15}")
    scores = {name: exact(result["outputs"], answers) for name, result in found.items()}
    print("exact: " + ", ".join(f"{name} {correct}" for name, correct in scores.items()))
    print(json.dumps({"rows": len(rows), "differences": differences, "exact": scores, "environment": environment}))


if __name__ == "__main__":
    main()
