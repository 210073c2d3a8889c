"""What a shard's job does on its device: load once, answer its rows of every part, and keep what earlier attempts have
answered.

    python -m pipeline.runs.shards.work ATTEMPT
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, ResourceError
from pipeline.files import sha256_of
from pipeline.model import lock
from pipeline.model.attest import attest
from pipeline.queues import job
from pipeline.queues.job import NODE
from pipeline.record import provenance, run_folder
from pipeline.record.outputs import NAME, whole_rows
from pipeline.runs import engines
from pipeline.runs.shards import keys, merge
from pipeline.runs.shards import plan as planning
from pipeline.runs.shards.answering import answer
from pipeline.runs.shards.plan import ALLOWED, Part, Plan


def main(attempt: Path) -> str:
    place = attempt.parents[2]
    plan = planning.read(place)
    assert plan is not None, f"no plan in {place}"
    return job.run(attempt, lambda folder: work(folder, plan), ALLOWED)


def work(attempt: Path, plan: Plan) -> dict[str, Any]:
    """The outcome. What this device lacks may be there on another one; what is wrong with the data is so on all."""
    number, model, began_s = keys.number_of(attempt.parent.name), Path(plan.model), time.monotonic()
    try:
        locked = lock.current(model)
        if locked.root != plan.lock_sha256:
            return {"kind": NODE, "why": f"the weights in {model} are not those of the plan"}
        for each in plan.parts:
            if sha256_of(Path(each.data)) != each.sha256:
                return {"kind": NODE, "why": f"{each.data} is not the file of the plan"}
        request, origin = plan.parts[0].request, provenance.describe()
        pipe = engines.load(plan.engine, model, dtype=request.dtype, device=request.device)
        engines.warm_up(pipe)
        weights = engines.weights(attest(model, pipe.resident(), locked))
        ready_s = time.monotonic() - began_s
        for each in plan.parts:
            piece = each.pieces[number - 1] if number <= len(each.pieces) else ()
            if piece:
                dataset = {"name": each.request.dataset, "sha256": each.sha256, "rows": each.rows}
                began = {**engines.manifest_head(each.request, model, locked, origin), "dataset": dataset,
                         "weights": weights, "ready_s": ready_s}  # fmt: skip
                kept = _take_over(attempt, each, piece, began)
                shard = {"number": number, "of": plan.count, "rows": len(piece), "kept": kept}
                answer(pipe, each.request, attempt / each.name, Path(each.data), {**began, "shard": shard}, piece)
    except ResourceError:
        raise  # another device may have the memory, the disk
    except PipelineError as error:
        return {"kind": keys.REFUSED, "why": str(error), "code": error.code}
    return {"kind": keys.FINE}


def _take_over(attempt: Path, part: Part, piece: tuple[int, ...], began: dict[str, Any]) -> int:
    """Write the whole answers of earlier attempts, where these were made with what this one is made with."""
    kept: dict[int, dict[str, Any]] = {}
    for folder in keys.attempts_of(attempt.parents[1], attempt.parent.name):
        if folder == attempt:
            continue
        try:
            before = run_folder.read_manifest(folder / part.name, known_schema=True)
            rows, _ = whole_rows(folder / part.name / NAME)
        except (OSError, ValueError):
            continue
        if not merge.differing(before, began):
            kept = {**rows, **kept}
    lines = [json.dumps({**kept[index], "at_s": None}, ensure_ascii=False) + "\n" for index in piece if index in kept]
    (attempt / part.name).mkdir()
    (attempt / part.name / NAME).write_text("".join(lines), encoding="utf-8")
    return len(lines)


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
