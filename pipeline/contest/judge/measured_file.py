"""What the organiser measured of a run, as a file beside the copies of what the run left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter

from pipeline import files
from pipeline.contest.rerun.measure import Measured
from pipeline.contest.verify.again.once import JUDGED, One, read_again
from pipeline.device.channels import Channel
from pipeline.device.telemetry import Recording, Sample
from pipeline.device.verdict import State
from pipeline.queues import attempts

NAME = "measured.json"
STATE = TypeAdapter(State)


def write(one: One, folder: Path) -> None:
    measured, seen = one.measured, one.measured.recording
    told = {name: getattr(measured, name) for name in ("status", "ready_s", "elapsed_s", "run", "dropped_bytes")}
    told |= {"wrong": list(measured.wrong), "board": [STATE.dump_python(each, mode="json") for each in measured.board]}
    told["recording"] = seen and {
        "channels": [[each.name, each.kind] for each in seen.channels],
        "samples": [[each.at_s, list(each.values)] for each in seen.samples],
        "elapsed_s": seen.elapsed_s, "cost_s": seen.cost_s, "others_share": seen.others_share,
    }  # fmt: skip
    files.write_json(folder / NAME, told)


def read(folder: Path) -> One | None:
    """The run of an attempt's folder; None where nothing was measured."""
    told = attempts.read(folder / NAME)
    if told is None:
        return None
    seen, board = told.pop("recording"), tuple(STATE.validate_python(each) for each in told.pop("board"))
    answers = folder / JUDGED / "outputs.jsonl"
    content = answers.read_bytes() if answers.is_file() else b""
    measured = Measured(
        answers=content, board=(board[0], board[1]), recording=seen and _recording(seen),
        wrong=tuple(told.pop("wrong")), **told,
    )  # fmt: skip
    return replace(read_again(folder, measured), folder=folder)


def _recording(told: dict[str, Any]) -> Recording:
    return Recording(
        tuple(Channel(name, kind, _gone) for name, kind in told["channels"]),
        tuple(Sample(at_s, tuple(values)) for at_s, values in told["samples"]),
        told["elapsed_s"], told["cost_s"], told["others_share"],
    )  # fmt: skip


def _gone() -> NoReturn:
    raise OSError("the recording has ended")
