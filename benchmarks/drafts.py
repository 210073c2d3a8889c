"""Time and passes that drafts save: the same rows with and without, on the stand-in.

    python benchmarks/drafts.py                       # obqa-test, 500 rows, about two minutes on two cores

Tokens are the same either way (checked); passes, rows and seconds differ. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline import text_generation  # noqa: E402
from pipeline.dataset import fetch, records  # noqa: E402
from pipeline.engine import drafts  # noqa: E402
from pipeline.model import fetch as setup  # noqa: E402


def measure(pipe: text_generation.TextGenerator, chats: list[Any], max_new_tokens: int) -> dict[str, Any]:
    start = time.perf_counter()
    answers = pipe.answer(chats, max_new_tokens=max_new_tokens, return_full_text=False, do_sample=False)
    elapsed_s = time.perf_counter() - start
    stats = answers.stats
    return {
        "elapsed_s": elapsed_s,
        "passes": stats.passes,
        "rows": stats.prompt_rows + stats.answer_rows,
        "answer_tokens": stats.answer_tokens,
        "proposed": stats.drafts_proposed,
        "accepted": stats.drafts_accepted,
        "outputs": answers.outputs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="obqa-test")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--max-new-tokens", type=int, default=500)
    options = parser.parse_args()

    chats = [row.messages for row in records.read(fetch.resolve(options.data))[: options.limit]]
    pipe = text_generation.load(setup.ensure("standin"), dtype="float32")
    pipe.warm_up()
    measured = pipe.engine.cost
    found = {"as the cost model says": measure(pipe, chats, options.max_new_tokens)}
    pipe.engine.draft_policy = lambda *_: drafts.NONE
    found["without"] = measure(pipe, chats, options.max_new_tokens)
    pipe.engine.draft_policy = lambda draft, *_: draft
    found["every draft"] = measure(pipe, chats, options.max_new_tokens)

    first = found["as the cost model says"]["outputs"]
    print(f"\n{options.data}, {len(chats)} rows, cost {dict(zip(measured.rows, measured.elapsed_s, strict=True))}")
    print(
        f"{'drafts':<24}{'seconds':>9}{'passes':>8}{'rows':>8}{'proposed':>10}{'accepted':>10}{'share':>8}{'same':>7}"
    )
    for name, result in found.items():
        proposed, accepted = sum(result["proposed"].values()), sum(result["accepted"].values())
        share = f"{accepted / proposed:.0%}" if proposed else "–"
        same = "yes" if result.pop("outputs") == first else "NO"
        print(
            f"{name:<24}{result['elapsed_s']:>9.1f}{result['passes']:>8}{result['rows']:>8}"
            f"{proposed:>10}{accepted:>10}{share:>8}{same:>7}"
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
