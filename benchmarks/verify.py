"""How the time of a verification grows with what a stranger hands in: each kind of file in four sizes.

    python benchmarks/verify.py              # a minute
    python benchmarks/verify.py --whole TAR  # besides, the processor time of verifying this submission

Each is read in a process of its own by the reader that `invoke verify` or `invoke similarity` uses, up to the largest
size that the reader does not refuse unread; contents are those that made readers slow
(tests/contest/forgeries/test_bombs.py). Sizes double; growth is how many times as long the largest took as the one
before: 2 is linear, 4 is quadratic. The last column is twice the largest size: its time, or that of refusing it.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline import paths, table  # noqa: E402
from pipeline.contest import apart  # noqa: E402
from pipeline.contest.apart import Call, Stopped  # noqa: E402
from pipeline.contest.archive import strict_json  # noqa: E402
from pipeline.contest.checks import read_submitted  # noqa: E402
from pipeline.contest.rules import source_rules  # noqa: E402
from pipeline.contest.rules.evidence import Evidence  # noqa: E402
from pipeline.contest.similarity import fingerprints, languages, prints  # noqa: E402
from pipeline.contest.similarity.source_tree import Tree  # noqa: E402
from pipeline.contest.source import bounds, secrets, third_party  # noqa: E402
from pipeline.table import Column  # noqa: E402

MIB = 1 << 20
STEPS = (8, 4, 2, 1)
ENDS = 64
"""Bytes that are left for a beginning and an end, so that the whole is no larger than it may be."""


def _json(size: int) -> None:
    keys = b"".join(b', "k%07d": 1' % i for i in range((size - ENDS) // 15))
    _refused(partial(strict_json.loads, b'{"a": 1' + keys + b', "k0000001": 2}'))


def _answers(size: int) -> None:
    row = b'{"index":0,"output":[{"generated_text":"an answer"}],"token_ids":[1,2,3],"at_s":0.5}\n'
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "outputs.jsonl").write_bytes(row * (size // len(row)))
        read_submitted.read_answers(Path(folder))


def _citations(size: int) -> None:
    _refused(partial(third_party.parse, b"code: []" + b"\n- {a: b}" * ((size - ENDS) // 9)))


def _imports(size: int) -> None:
    nothing = third_party.ThirdParty(code=(), ideas=(), models=(), data=(), packages=())
    third_party.uncited({"x.py": b"x=[" + b"1," * ((size - ENDS) // 2) + b"]"}, nothing)


def _script(size: int) -> None:
    source = {source_rules.SCRIPT: b"x=[" + b"1," * ((size - ENDS) // 2) + b"]"}
    source_rules.script(Evidence(source=source), None)  # type: ignore[arg-type]


def _tokens(size: int) -> None:
    secrets.tokens_in(b"-eyJaaaaaaaaaa" * (size // 14))


def _similarity(size: int) -> None:
    """Both sides: files of one piece again and again, which all stand in each other."""
    line = "x = (a + b) * c[d] - e(f, g) / h % i\n"
    each = (line * (languages.MOST_FILE_CHARACTERS // len(line))).encode()
    count = max(1, size // len(each))
    a, b = (Tree(name, {f"m{i}.py": each for i in range(count)}, None) for name in "ab")
    printed = {tree.name: prints.of_tree(tree, np.zeros(0, np.int64))[0] for tree in (a, b)}
    fingerprints._pair(a, b, printed)


def _refused(read: Callable[[], object]) -> None:
    with contextlib.suppress(ValueError):
        read()


KINDS: dict[str, tuple[Callable[[int], None], int]] = {
    "manifest.json, a key twice among many": (_json, strict_json.MOST_BYTES),
    "outputs.jsonl": (_answers, 8 * MIB),
    "THIRD_PARTY.yaml": (_citations, bounds.MOST_BYTES["YAML"]),
    "a Python file of the source": (_imports, bounds.MOST_BYTES["Python"]),
    "test_script.py": (_script, bounds.MOST_BYTES["Python"]),
    "any file, beginnings of tokens": (_tokens, 32 * MIB),
    "similarity, a side": (_similarity, 2 * MIB),
}


def measured(read: Callable[[int], None], size: int) -> tuple[float, float]:
    """Processor seconds, and MiB at the peak beyond the program's own."""
    before_s, before_kib = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read(size)
    used_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    return time.process_time() - before_s, used_kib / 1024


def rows() -> list[tuple[str, ...]]:
    made = []
    for kind, (read, largest) in KINDS.items():
        sizes = [*(largest // step for step in STEPS), 2 * largest]
        calls = [Call(kind, partial(measured, read, size)) for size in sizes]
        results = [next(iter(apart.each([call])))[1] for call in calls]
        if any(isinstance(result, Stopped) for result in results):
            raise SystemExit(f"{kind}: {results}")
        *seconds, twice_s = [result[0] for result in results]
        shown = [f"{each:.2f}" for each in seconds]
        growth = seconds[-1] / max(seconds[-2], 1e-9)
        beyond = f"refused in {twice_s:.2f}" if twice_s < seconds[-1] else f"{twice_s:.2f}"
        made.append((kind, f"{largest / MIB:.2f}", *shown, f"{results[-2][1]:,.0f}", f"{growth:.1f}", beyond))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of readers by size.")
    parser.add_argument("--whole", type=Path, help="a submission's tar file, to be verified too")
    asked = parser.parse_args()
    heads = ("MiB", "s, 1/8", "1/4", "1/2", "whole", "MiB used", "growth", "s, twice as large")
    columns = [Column("read"), *(Column(name, right=True) for name in heads)]
    print(table.text(columns, rows()))
    if asked.whole is not None:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "invoke", "verify", str(asked.whole), "--json"]
        subprocess.run(command, cwd=paths.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"\ninvoke verify: {used_s:.1f} s of processor time")


if __name__ == "__main__":
    main()
