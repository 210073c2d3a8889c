"""The last line of a task that ended well: what people do next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from pipeline import paths, table

SCRIPT = "phi3-pipeline"
"""The console script of a wheel; in a checkout it is invoke."""

NEXT: Mapping[str, str] = {
    "run": "invoke report {run} shows it as a page; invoke run --engine reference answers the same with pipe(), and "
    "invoke compare then says how much faster this run was",
    "run --engine reference": "invoke compare {run} OURS says how much faster our run of the same data was",
    "evaluate": "invoke report {folder}/SET-ENGINE shows one set as a page; invoke compare compares two of its folders",
    "stress": "invoke run --dataset {dataset} answers the whole set",
    "compare": "invoke report {run} --against {other} shows it as a page",
    "reproduce": "invoke submit --run {run} packs it to hand in",
    "report --against": "open it in a browser",
    "report": "open it in a browser; --against BASELINE adds how much faster it was than another run",
    "setup": "invoke doctor --model {model} checks all that can spoil a run; then invoke run --model {model}",
    "doctor": "invoke run --model {model} --dataset {dataset}",
    "data": "invoke run --dataset {dataset} answers it",
    "plan": "on that device: invoke setup --model {model}, then invoke run --model {model}",
    "verify-weights": "invoke run --model {model} answers the contest's public set",
    "rules": "invoke submit --run {run} packs the run; --rehearsal where board, model or team are not the contest's",
    "submit": "invoke verify {file} checks it as the organiser will; then hand in the file and its SHA-256",
    "verify": "invoke leaderboard {folder} ranks all verdicts in that folder",
    "judge": "invoke leaderboard {folder} ranks the verdicts",
    "signing-key": "give everybody {file}.pub; invoke verify FILE.tar --sign {file} signs a verdict",
    "check-signed": "invoke leaderboard FOLDER --check finds any change to the log of all verdicts",
    "leaderboard": "open it in a browser",
    "similarity": "open it in a browser: a person decides what shared source means",
    "test": "invoke lint",
    "test-oldest": "invoke lint",
    "lint": "invoke test",
    "bench": "show {picture}; README.md, How fast, has the times of another machine",
    "lock": "make setup installs what is locked; then invoke test",
    "image": "invoke shell --image {image} --host --task doctor",
    "image-test": "invoke image builds the real one, on a board",
}
"""By task. `help` and `shell` have none: one is the list, the other ends as the task inside of it does."""


def then(task: str, quiet: bool = False, **names: object) -> None:
    """Print a task's line, its names filled in; `quiet` where programs read the output."""
    if quiet:
        return
    line = NEXT[task].format(**{key: shlex.quote(str(name)) for key, name in names.items()})
    line = f"next: {line}" if paths.CHECKOUT else f"next: {line.replace('invoke ', f'{SCRIPT} ')}"
    print(table.fitted(f"\n{line}"))
