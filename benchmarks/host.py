"""Time of the host's work for a set, by phase, with no device: the real scheduler and packing, answers by a script.

    python benchmarks/host.py phi3_ids.json                      # any machine; seconds
    python benchmarks/host.py phi3_ids.json --data data/sets/obqa-test.jsonl --tokenizer models/standin

A phase is `hidden` while a pass runs on the device and `bare` where the device has nothing to do meanwhile. With
`--data`, reading, tokenising, listing the choices and decoding are timed too. The last line is JSON.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.scripted import END, MAX_NEW_TOKENS, MEDIUM, Set, read_sets  # noqa: E402
from pipeline.engine import cost, loop, prefix_tree  # noqa: E402
from pipeline.engine.attention import paged  # noqa: E402
from pipeline.engine.pool import Slots  # noqa: E402
from pipeline.engine.scheduler import Scheduler  # noqa: E402
from pipeline.engine.segment import pack  # noqa: E402
from pipeline.engine.state import Limits, Work  # noqa: E402

CURVE = cost.roofline(MEDIUM, 2, 700e12, 2.8e12, 8192)
"""About an H100's: it decides what goes into a pass, not what is timed here."""

Value = TypeVar("Value")


class Phases:
    """Seconds by (phase, whether the device was busy)."""

    def __init__(self) -> None:
        self.elapsed_s: dict[tuple[str, bool], float] = {}
        self.busy = False

    def time(self, name: str, what: Callable[[], Value]) -> Value:
        start = time.perf_counter()
        value = what()
        key = (name, self.busy)
        self.elapsed_s[key] = self.elapsed_s.get(key, 0.0) + time.perf_counter() - start
        return value


class TimedScheduler(Scheduler):
    def __init__(self, phases: Phases, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._phases = phases

    def next_pass(self, ahead: bool = False, budget_rows: int | None = None) -> list[Work]:
        return self._phases.time("next pass", lambda: Scheduler.next_pass(self, ahead, budget_rows))

    def accept(self, works: Sequence[Work], chosen: Sequence[int]) -> list[int]:
        return self._phases.time("accept", lambda: Scheduler.accept(self, works, chosen))


def work_off(data: Set, budget_rows: int) -> Phases:
    """One set, as Engine.generate drives it on a CUDA device."""
    phases = Phases()
    tree = phases.time("tree", lambda: prefix_tree.build(data.prompts))
    limits = Limits(budget_rows, 131_072, max(512, budget_rows // 8))
    scheduler = phases.time(
        "tree",
        lambda: TimedScheduler(
            phases, tree, data.script.candidates, Slots(limits.slots), limits, CURVE, MAX_NEW_TOKENS, frozenset({END})
        ),
    )
    running = 0
    device = torch.device("cpu")

    def start(works: list[Work]) -> None:
        nonlocal running
        packed = phases.time("pack", lambda: pack([work.segment for work in works], device))
        phases.time("pack", lambda: paged.host_tables(packed, MEDIUM.heads // MEDIUM.kv_heads))
        running += 1
        phases.busy = True

    def tokens(works: list[Work], _: None) -> list[int]:
        nonlocal running
        running -= 1
        phases.busy = running > 0
        return data.script.choose(works)

    for _ in loop.run(scheduler, start, tokens, overlaps=True):
        pass
    return phases


def text_phases(data: Path, tokenizer_folder: str) -> dict[str, float]:
    from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds

    from pipeline.dataset import records  # noqa: PLC0415
    from pipeline.text import candidates, chat_template  # noqa: PLC0415
    from pipeline.text.detokenize import probe  # noqa: PLC0415

    tokenizer, form, phases = AutoTokenizer.from_pretrained(tokenizer_folder), probe(), Phases()
    rows = phases.time("read", lambda: records.read(data))
    chats = [row.messages for row in rows]
    ask = chat_template.Prompts(tokenizer)
    asked = phases.time("tokenise", lambda: ask(chats))
    phases.time("choices", lambda: candidates.candidates(tokenizer, chats, 0))
    phases.time("decode", lambda: [form.text(tokenizer, prompt, prompt[:6]) for prompt in asked])
    return {name: elapsed_s * 1e3 for (name, _), elapsed_s in phases.elapsed_s.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", help="phi3_ids.json")
    parser.add_argument("--budget", type=int, default=6144, help="rows of a pass at most")
    parser.add_argument("--profile", default="", help="a set to show the functions of")
    parser.add_argument("--data", type=Path, default=None, help="a data set, for the text phases")
    parser.add_argument("--tokenizer", default="models/standin")
    options = parser.parse_args()

    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    names = ("tree", "next pass", "pack", "accept")
    print(f"{'ms':<12}" + "".join(f"{name:>11}" for name in names) + f"{'bare':>9}{'hidden':>9}")
    for data in read_sets(options.ids, [], None):
        work_off(data, options.budget)
        best = min((work_off(data, options.budget) for _ in range(3)), key=lambda p: sum(p.elapsed_s.values()))
        by_phase = {n: sum(s for (m, _), s in best.elapsed_s.items() if m == n) * 1e3 for n in names}
        bare, hidden = (
            sum(s for (_, busy), s in best.elapsed_s.items() if busy is which) * 1e3 for which in (False, True)
        )
        print(f"{data.name:<12}" + "".join(f"{by_phase[n]:>11.1f}" for n in names) + f"{bare:>9.1f}{hidden:>9.1f}")
        report[data.name] = {**by_phase, "bare": bare, "hidden": hidden}
        if data.name == options.profile:
            profile = cProfile.Profile()
            profile.runcall(work_off, data, options.budget)
            pstats.Stats(profile).sort_stats("tottime").print_stats(15)
    if options.data is not None:
        text_phases(options.data, options.tokenizer)
        report["text"] = text_phases(options.data, options.tokenizer)
        print(f"{options.data.stem}: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in report["text"].items()))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
