"""Before anything is queued: the boards of a farm as `queues.boards` looks at them, and that each can run containers.

python -m pipeline.contest.judge.farm FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.contest.verify.again import process as launch
from pipeline.errors import EnvironmentProblem, PipelineError
from pipeline.queues import boards
from pipeline.queues.queue import Queue


def main(folder: Path) -> None:
    try:
        launch.check_docker()
        engine = ""
    except PipelineError as error:
        engine = f"{error.code} {error.what}"
    boards.look(folder, {"engine": engine})


def check(queue: Queue, place: Path, python: Sequence[str], tell: Callable[[str], None]) -> list[str]:
    """The boards that will do. Raises what `boards.check` does, and EnvironmentProblem (E637) for a board without
    containers."""
    answers = boards.check(queue, place, (*python, "-m", "pipeline.contest.judge.farm"), tell)
    for node, told in answers:
        if told["engine"]:
            raise EnvironmentProblem(
                "E637", "a board cannot run containers, and a stranger's program runs only in one", where=node.name,
                actual=told["engine"], fix="install docker or podman there, or drain the board: scontrol update "
                f"nodename={node.name} state=drain reason=containers",
            )  # fmt: skip
    return [node.name for node, _ in answers]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
