"""The token audit's power: false alarms over honest runs, and how many of which lies it finds. Kept, so resumable.

    python benchmarks/audit.py --kept FOLDER                            # 20 rows of every set that is there
    python benchmarks/audit.py --kept FOLDER --device cuda --workers 8  # on a GPU, some minutes
    python benchmarks/audit.py --kept FOLDER --only tables              # what docs/audit.md has, from what is kept

Honest: our engine, and transformers' pipe() at batch size 1 and 16, in float32 and bfloat16. Lies: weights rounded to
int4 and int8 (groups of 32, float32 otherwise), the stand-in without its adapter and with half of it, prompts whose
last third is missing, answers copied from the key where they are not the model's, one flipped token. An audit is that
of one set's answers, as `invoke verify --audit` makes it; a lie claims bfloat16, which is allowed more.

Every answer and every look is kept in a file of its own (`audit_cells.py`). `--look-on cpu` looks at a GPU's answers
with another machine's noise.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from benchmarks import audit_cells  # noqa: E402
from benchmarks.audit_cells import GENERATED_LIES, HONEST, LIES, Cells, say  # noqa: E402
from pipeline import settings  # noqa: E402
from pipeline.contest.audit import judging  # noqa: E402
from pipeline.contest.audit.looking import Seen  # noqa: E402
from pipeline.model import fetch as setup  # noqa: E402

TRIALS = 400
SIZES = (1, 2, 5, 10, 20, 50, 100)
PARTS = 3
"""The slowest contender, pipe() one prompt at a time, is shared out over so many processes."""


def compute(chosen: argparse.Namespace) -> None:
    """First the answers, then the looks at them, by as many processes as `workers`."""
    answers = [
        (contender, dtype, part)
        for contender, dtype in [*HONEST, *((lie, "float32") for lie in GENERATED_LIES)]
        for part in shares(chosen.sets, PARTS if contender == "pipe-1" else 1)
    ]
    answers.sort(key=lambda job: job[0] != "pipe-1")
    # The first of ours alone: it compiles what the others load.
    with ProcessPoolExecutor(chosen.workers, mp_context=get_context("spawn")) as pool:
        pool.submit(audit_cells.answer, chosen, "ours", "float32", chosen.sets).result()
        for job in as_completed([pool.submit(audit_cells.answer, chosen, *each) for each in answers]):
            job.result()
        for job in as_completed([pool.submit(audit_cells.look, chosen, each) for each in looked_at(chosen)]):
            job.result()


def looked_at(chosen: argparse.Namespace) -> list[Sequence[str]]:
    return shares(chosen.sets, min(chosen.workers, 6))


def shares(sets: Sequence[str], count: int) -> list[Sequence[str]]:
    return [part for turn in range(count) if (part := sets[turn::count])]


# Tables


def tables(cells: Cells) -> str:
    names, rows = list(cells.sets), sum(len(each.rows) for each in cells.sets.values())
    chosen = cells.chosen
    lines = [
        f"{rows} rows, {chosen.rows} at most of each of {len(names)} sets: {', '.join(names)}.",
        f"Answers from {chosen.device}, audited on {chosen.look_on}.",
        "",
        *honest_table(cells),
        "",
        *pairs_table(cells),
        "",
        *lies_table(cells),
        "",
        *hidden(cells, "int4"),
    ]
    return "\n".join(lines)


def audits(cells: Cells, contender: str, dtype: str, audited_as: str) -> Iterator[tuple[str, Seen]]:
    for name, of in cells.sets.items():
        seen = cells.seen(contender, dtype, audited_as, of)
        if seen is not None:
            yield name, seen


def honest_table(cells: Cells) -> Iterator[str]:
    heads = ("audits", "rows", "tokens", "not the first choice", "limits", "nearest to its limit", "alarms", "shuffled")
    yield f"| honest run | dtype | {' | '.join(heads)} |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |"
    chance = np.random.default_rng(16)
    for contender, dtype in HONEST:
        all_seen = dict(audits(cells, contender, dtype, dtype))
        found = {name: judging.judge(seen) for name, seen in all_seen.items()}
        if not found:
            continue
        alarms = [name for name, each in found.items() if any(check.state != "ok" for check in judging.checks(each))]
        worst = max(found.values(), key=lambda each: each.largest / each.allowed.limit)
        yield (
            f"| {contender} | {dtype} | {len(found)} | {sum(each.rows for each in found.values())} "
            f"| {sum(each.tokens for each in found.values()):,} | {sum(each.other for each in found.values())} "
            f"| {min(each.allowed.limit for each in found.values()):.2f} to "
            f"{max(each.allowed.limit for each in found.values()):.2f} "
            f"| {worst.largest:.3f} of {worst.allowed.limit:.3f} | {', '.join(alarms) or 'none'} "
            f"| {np.mean([shuffled(each, chance) for each in all_seen.values()]):.2%} |"
        )


def pairs_table(cells: Cells) -> Iterator[str]:
    """How many rows two honest runs answer differently (docs/exactness.md)."""
    yield "| rows whose tokens differ | differ | of |"
    yield "| --- | ---: | ---: |"
    for one, other in combinations(HONEST, 2):
        both = [(cells.answers(*one, of), cells.answers(*other, of)) for of in cells.sets.values()]
        rows = [pair for a, b in both if a is not None and b is not None for pair in zip(a, b, strict=True)]
        if rows:
            yield f"| {' '.join(one)} and {' '.join(other)} | {sum(a != b for a, b in rows)} | {len(rows)} |"


def shuffled(seen: Seen, chance: np.random.Generator) -> float:
    """The share of false alarms over honest programs whose noise is none of ours: each place gets that of another, and
    has its second token where that turns the lead round, without any look that would bring it back."""
    alarms = 0
    for _ in range(TRIALS):
        noise = chance.choice(seen.noise, len(seen.leads)) * chance.choice([-1, 1], len(seen.leads))
        behind = np.where(noise > seen.leads, seen.leads, 0)
        made = judging.judge(Seen({0: behind}, seen.leads, seen.noise))
        alarms += bool(made.beyond) or made.total > made.allowed.total
    return alarms / TRIALS


def lies_table(cells: Cells) -> Iterator[str]:
    heads = " | ".join(f"{size} row{'s' * (size > 1)}" for size in SIZES)
    yield f"| lie | rows | audits that fail | beyond the limit | {heads} |"
    yield f"| --- | ---: | ---: | ---: |{' ---: |' * len(SIZES)}"
    chance = np.random.default_rng(16)
    for lie in LIES:
        found = [seen for _, seen in audits(cells, lie, "float32", "bfloat16")]
        if not found:
            continue
        made = [judging.judge(seen) for seen in found]
        fail = sum(any(check.state == "fail" for check in judging.checks(each)) for each in made)
        rows = sum(each.rows for each in made)
        alone = sum(len(each.beyond) for each in made) / rows
        rates = " | ".join(f"{caught(found, size, chance):.1%}" for size in SIZES)
        yield f"| {lie} | {rows} | {fail} of {len(made)} | {alone:.1%} | {rates} |"


def hidden(cells: Cells, lie: str) -> Iterator[str]:
    """The sets in which submissions of that lie, of 100 rows, are found less often than 99 times in a hundred."""
    chance, rates = np.random.default_rng(16), []
    for name, seen in audits(cells, lie, "float32", "bfloat16"):
        of = cells.sets[name]
        own, theirs = cells.answers("ours", "float32", of) or [], cells.answers(lie, "float32", of) or []
        other = sum(a != b for a, b in zip(own, theirs, strict=True))
        rates.append((caught([seen], 100, chance), name, f"{other} of {len(own)}"))
    below = [
        f"{name} ({rate:.1%}; {other} answers are other than the model's)" for rate, name, other in rates if rate < 0.99
    ]
    found = len(rates) - len(below)
    yield f"Of {lie}, 100 rows are found in at least 99 % of cases in {found} of {len(rates)} sets; not in:"
    yield ", ".join(below) or "none"


def caught(found: Sequence[Seen], size: int, chance: np.random.Generator) -> float:
    """The share of submissions of `size` rows of such a lie that fail by either check: rows of one set, drawn with
    replacement, under the noise that the audit of that set measured."""
    fails = 0
    for _ in range(TRIALS):
        seen = found[chance.integers(len(found))]
        behind, ends = list(seen.behind.values()), np.cumsum([len(each) for each in seen.behind.values()])
        drawn = chance.integers(0, len(behind), size)
        leads = np.concatenate([seen.leads[ends[row] - len(behind[row]) : ends[row]] for row in drawn])
        made = judging.judge(Seen({turn: behind[row] for turn, row in enumerate(drawn)}, leads, seen.noise))
        fails += bool(made.beyond) or made.total > made.allowed.total
    return fails / TRIALS


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "sets", help="a folder of NAME.jsonl")
    parser.add_argument("--sets", default="", help="by commas; left out, all of the folder")
    parser.add_argument("--rows", type=int, default=20, help="of each set, spread over it")
    parser.add_argument("--max-new-tokens", type=int, default=24)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="of the answers")
    parser.add_argument("--look-on", default="", choices=["", "cpu", "cuda"], help="left out, as --device")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kept", type=Path, required=True, help="a folder, made if need be")
    parser.add_argument("--only", default="", choices=["", "tables"])
    chosen = parser.parse_args()
    chosen.look_on = chosen.look_on or chosen.device
    there = [name for name in settings.dataset_names() if (chosen.data / f"{name}.jsonl").is_file()]
    chosen.sets = chosen.sets.split(",") if chosen.sets else there
    return chosen


def main() -> None:
    chosen, start = options(), time.perf_counter()
    for name in ("standin", "standin-base"):
        setup.ensure(name, lambda _: None)
    if chosen.only != "tables":
        compute(chosen)
        say(f"computed in {time.perf_counter() - start:.0f} s")
    print(tables(Cells(chosen)), flush=True)


if __name__ == "__main__":
    main()
