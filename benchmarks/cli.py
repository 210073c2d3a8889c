"""How long the commands take that only look: wall and processor seconds, the best of five, the second time on.

    python benchmarks/cli.py            # a minute or two on two quiet cores
    python benchmarks/cli.py --only rules,plan

`python -c pass` stands above them for the machine's own share: on a busy one every row grows with it. `look` is all
that `invoke run` says of a file of 1,000 rows before it imports torch. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INVOKE = [str(Path(sys.executable).parent / "invoke")]
LOOK = "import sys; from pipeline.runs.request import Request, begin; begin(Request(dataset=sys.argv[1]))"
ROWS = 1000
TARGETS_S = {
    "python": None,
    "--list": 0.3,
    "help": 0.3,
    "rules": 1.0,
    "doctor": 2.0,
    "data --list": 1.0,
    "plan": 3.0,
    "look": 3.0,
}
"""Wall seconds on two quiet cores."""


def measure(command: list[str], times: int) -> tuple[float, float]:
    """Least wall and least processor seconds; a first call, which fills caches, does not count."""
    wall_s, processor_s = [], []
    for turn in range(times + 1):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
        elapsed_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if turn:
            wall_s.append(elapsed_s)
            processor_s.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(wall_s), min(processor_s)


def command_of(name: str, data: Path) -> list[str]:
    if name == "python":
        return [sys.executable, "-c", "pass"]
    if name == "look":
        return [sys.executable, "-c", LOOK, str(data)]
    return [*INVOKE, *name.split()]


def write_rows(path: Path) -> Path:
    content = [{"role": "user", "content": f"Read the passage, then answer question {{}}. {'lamp ' * 150}"}]
    line = json.dumps({"message": content, "answer": "one"}) + "\n"
    path.write_text("".join(line.replace("{}", str(index)) for index in range(ROWS)), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(TARGETS_S), help="some of the commands, comma between")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := [name for name in names if name not in TARGETS_S]:
        parser.error(f"no command {', '.join(unknown)}; there are {', '.join(TARGETS_S)}")
    results = {}
    print(f"{'':<14}{'wall s':>8}{'processor s':>13}{'× python':>10}{'target s':>10}")
    with tempfile.TemporaryDirectory() as folder:
        data = write_rows(Path(folder) / "rows.jsonl")
        bare_s = 0.0
        for name in ["python", *(name for name in names if name != "python")]:
            wall_s, processor_s = measure(command_of(name, data), options.times)
            target_s = TARGETS_S[name]
            bare_s = bare_s or processor_s
            results[name] = {"wall_s": wall_s, "processor_s": processor_s, "target_s": target_s}
            row = f"{name:<14}{wall_s:>8.2f}{processor_s:>13.2f}{processor_s / bare_s:>10.0f}{target_s or '–':>10}"
            print(row, flush=True)
    print(json.dumps({"results": results, "load": os.getloadavg(), "cores": os.cpu_count()}))


if __name__ == "__main__":
    main()
