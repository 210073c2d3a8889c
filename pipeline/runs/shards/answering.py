"""The rows of one set that are not answered yet, answered into a run folder; not under the contest's clock."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.dataset import records
from pipeline.record import run_folder
from pipeline.runs.progress import Bar
from pipeline.runs.request import Request, lines_of, warning
from pipeline.text.answers import Answered

if TYPE_CHECKING:
    from pipeline.runs.engines import Pipe


def answer(
    pipe: Pipe, request: Request, path: Path, data: Path, began: Mapping[str, Any], only: Collection[int] | None = None
) -> None:
    """`began` is the manifest's head; `only` has the indices of a shard's rows."""
    path.mkdir(exist_ok=True)
    rows = records.read(data)[: request.limit]
    with run_folder.RunFolder(path) as folder, Bar(request.dataset) as bar:
        folder.begin({**began, "dataset": {**began["dataset"], "rows": len(rows)}})
        todo = [row for row in rows if row.index not in folder.kept and (only is None or row.index in only)]
        bar.begin(len(todo))

        def on_answer(answered: Answered) -> None:
            folder.append(todo[answered.index].index, answered.output, answered.token_ids)
            bar.answered(len(answered.token_ids))

        start = time.perf_counter()
        chats, place = [row.messages for row in todo], lines_of(data, todo)
        told = {"place": place, "on_answer": on_answer, "on_pass": bar.passed, "warn": warning(data)}
        answers = pipe.answer(chats, **began["arguments"], **told)
        elapsed_s = time.perf_counter() - start
        engine = {"name": request.engine, **pipe.describe(), **answers.describe()}
        folder.finish({"answered": len(todo), "answered_s": elapsed_s, "engine": engine})
