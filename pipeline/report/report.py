"""`invoke report`: one run as one page that needs nothing else, for people."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline import table
from pipeline.accuracy import stats
from pipeline.accuracy.compare import Comparison
from pipeline.html import page
from pipeline.record import run_folder
from pipeline.report import against as held
from pipeline.report import facts as facts_of
from pipeline.report import planned, run_plots
from pipeline.report.against import Against
from pipeline.report.facts import Facts
from pipeline.report.run_plots import seconds


@dataclass(frozen=True)
class Part:
    """One piece of a stacked bar."""

    label: str
    value: float
    words: str
    series: int


@dataclass(frozen=True)
class Report:
    path: Path
    missing: tuple[str, ...]


def make(run: str, against: str = "", to: str = "", execute_code: bool = False) -> Report:
    """Write the page of a run, held against another (the yardstick) where one is named; into the run's folder, or `to`.

    Raises UsageError (U311 no such run, U701 no manifest), what comparing raises, ResourceError where it cannot write.
    """
    folder = run_folder.find(run)
    seen = facts_of.read(folder, execute_code)
    other = held.read(against, seen, execute_code) if against else None
    path = Path(to).expanduser() if to else folder / run_folder.REPORT
    page.write(path, html(seen, other))
    silent = [f"Telemetry of {', '.join(seen.silent)}: the page says why."] if seen.silent else []
    return Report(path, (*seen.missing, *silent))


def html(seen: Facts, against: Against | None = None) -> str:
    """The page. The same folder gives the same bytes."""
    return page.render(
        "run.html",
        seen=seen,
        get=seen.get,
        name=seen.folder.name,
        title=" · ".join(_short(seen.get(f"request.{key}")) for key in ("dataset", "model", "engine")),
        began=_began(seen),
        by=_by(seen),
        state=_state(seen),
        verdict=_verdict(seen),
        pace=table.per_second(seen.get("answer_tokens") or 0, seen.get("elapsed_s")),
        accuracy=_accuracy(seen),
        stages=_stages(seen),
        floor=_floor(seen),
        sharing=_sharing(seen),
        drafts=_drafts(seen),
        pass_plots=run_plots.of_passes(seen),
        board_plots=run_plots.of_board(seen),
        against=against,
        manifests=_manifests,
        environment=_environment(seen),
        repeat=_repeat(seen),
        seconds=seconds,
    )


def _short(name: str | None) -> str:
    """A file's name where a path was given."""
    return Path(name or "unknown").stem or "unknown"


def _began(seen: Facts) -> str | None:
    try:
        return datetime.fromisoformat(seen.get("began_utc")).strftime("%Y-%m-%d %H:%M UTC")
    except (TypeError, ValueError):
        return None


def _by(seen: Facts) -> str:
    """Model, device and commit, of what is known."""
    dtype, gpu, cpu = seen.get("dtype"), seen.get("environment.gpu"), seen.get("environment.processor")
    device = (gpu if seen.get("device") == "cuda" else cpu) or seen.get("device")
    board = seen.get("board.before.board.model")
    commit = seen.get("code.commit")
    parts = [
        " in ".join(filter(None, (_short(seen.get("model.name")), dtype))),
        f"{board} ({device})" if board and device else device,
        f"commit {commit[:12]}" + ", with changes" * bool(seen.get("code.dirty")) if commit else None,
    ]
    return " · ".join(filter(None, parts))


def _state(seen: Facts) -> tuple[str, str, str] | None:
    """A heading and a sentence on why this run has no time, and an error as it was printed; None where it has one."""
    answered, asked = len(seen.rows), seen.get("dataset.rows")
    kept = f"{answered:,} of {asked:,} prompts were answered" if asked else f"{answered:,} prompts were answered"
    if seen.get("state") == run_folder.FAILED:
        return "This run ended early", f"{kept} before that; there is no time.", str(seen.get("failed.reason"))
    if seen.get("state") != run_folder.FINISHED:
        return "This run is not finished", f"{kept} so far, or until its process was killed; there is no time.", ""
    if seen.get("shards"):
        return "This run was made in shards, so it has no valid time", f"{seen.get('shards.time')}.", ""
    if seen.get("resumed"):
        turns = [f"{turn['kept']:,} answers were there after: {turn['after']}" for turn in seen.get("resumed")]
        return "This run was cut off and resumed, so it has no valid time", "; ".join(turns) + ".", ""
    return None


def _verdict(seen: Facts) -> dict[str, Any] | None:
    told = seen.get("verdict")
    if not told:
        return None
    kind = {"VALID": "good", "INVALID": "bad"}.get(told["state"], "warn")
    return {**told, "kind": kind}


def _accuracy(seen: Facts) -> dict[str, Any] | None:
    """The score, recomputed from the outputs here; the manifest's own figure beside it where it is another."""
    right, of = sum(row.right is True for row in seen.scored), len(seen.scored)
    told = seen.get("score") or {}
    if not of:
        return None
    low, high = stats.wilson(right, of)
    differs = seen.rule == "exact" and told and (told["correct"], told["scored"]) != (right, of)
    exact = seen.rule != "exact" and told.get("scored")
    return {
        "right": right,
        "of": of,
        "share": right / of,
        "low": low,
        "high": high,
        "told": told,
        "differs": differs,
        "exact": exact,
    }


def _stages(seen: Facts) -> list[tuple[str, float, str]]:
    """Stage, seconds, what it is."""
    told = seen.get("stages_s") or {}
    told = {"texts" if key == "hand_on" else key: value for key, value in told.items()}
    words = {
        "read": "reading and checking the file",
        "tokenise": "chat template and tokenizer",
        "plan": "the prefix tree and the first plan",
        "passes": "the model at work, with the making of texts between",
        "texts": "of these, texts made and written",
    }
    return [(key, told[key], what) for key, what in words.items() if key in told]


def _floor(seen: Facts) -> dict[str, Any] | None:
    """Where the last timed section went: the least that its rows could take on this device, and what came on top.

    The least is all rows at the rate of the cheapest measured pass. Passes of other sizes cost more by the cost model;
    what they really took differs from that again.
    """
    cost, told = run_plots.cost_of(seen), seen.get("stages_s") or {}
    timed = seen.get("phases_s.timed")
    if not seen.passes or cost is None or not timed or "read" not in told:
        return None
    rows = sum(each.rows for each in seen.passes)
    least = rows * min(cost.seconds(n) / n for n in cost.rows)
    by_model = sum(cost.seconds(each.rows) for each in seen.passes)
    measured = sum(run_plots.pass_times(seen.passes, run_plots.began_s(seen)))
    before = told["read"] + told["tokenise"] + told["plan"]
    pieces = [
        ("rows at the device's best rate", min(least, measured), 1),
        ("more, because passes are small", max(0.0, min(by_model, measured) - least), 4),
        ("more than the cost model says", max(0.0, measured - by_model), 2),
        ("before the first pass", before, 3),
        ("after the last", max(0.0, timed[-1] - before - measured), 6),
    ]
    parts = [Part(label, value, seconds(value), series) for label, value, series in pieces]
    faster = f"The passes took {seconds(by_model - measured)} less than the cost model says." * (measured < by_model)
    return {
        "parts": parts,
        "whole": timed[-1],
        "faster": faster,
        "planned": planned.sentence(seen, measured),
        "rows": rows,
        "times": measured / least if least else None,
    }


def _sharing(seen: Facts) -> dict[str, Any] | None:
    told = seen.get("engine.stats") or {}
    if not told.get("prompt_tokens"):
        return None
    whole, computed = told["prompt_tokens"], told["tree_tokens"]
    parts = [
        Part("computed", computed, f"{computed:,}", 1),
        Part(
            "shared, so not computed again", whole - computed, f"{whole - computed:,} = {1 - computed / whole:.0%}", 3
        ),
    ]
    if again := told.get("recomputed_rows"):
        parts.append(Part("computed again for want of memory", again, f"{again:,}", 2))
    return {"parts": parts, "whole": whole}


def _drafts(seen: Facts) -> list[dict[str, Any]]:
    proposed, accepted = seen.get("engine.stats.drafts_proposed") or {}, seen.get("engine.stats.drafts_accepted") or {}
    return [
        {
            "source": {"choices": "from the prompt's choices", "lookup": "from earlier text"}.get(source, source),
            "whole": count,
            "parts": [
                Part("accepted", accepted[source], f"{accepted[source]:,} = {accepted[source] / count:.0%}", 3),
                Part("wrong", count - accepted[source], f"{count - accepted[source]:,}", 6),
            ],
        }
        for source, count in proposed.items()
        if count
    ]


def _manifests(compared: Comparison) -> list[tuple[str, str]]:
    return [(name, f"{a} → {b}") for name, a, b in compared.manifests]


def _environment(seen: Facts) -> list[tuple[str, Any]]:
    """Label and value, of what is known."""
    cores, threads = seen.get("environment.cores"), seen.get("environment.threads")
    board = seen.get("board.before.board") or {}
    code = seen.get("code.commit")
    dirty = {True: ", with changes", False: "", None: ", perhaps with changes"}[seen.get("code.dirty")]
    plan = seen.get("engine.memory_plan.limits") or {}
    pairs = [
        ("model", seen.get("model.name")),
        ("model's lock", _hash(seen.get("model.lock_sha256"))),
        ("data set", seen.get("dataset.name")),
        ("data set's sha256", _hash(seen.get("dataset.sha256"))),
        ("numbers", seen.get("dtype")),
        ("device", seen.get("device")),
        ("GPU", seen.get("environment.gpu")),
        ("board", board.get("model") or board.get("module")),
        ("JetPack", board.get("jetpack")),
        ("power mode", (seen.get("board.before.mode") or {}).get("name")),
        ("processor", seen.get("environment.processor")),
        ("cores, threads", f"{cores}, {threads}" if cores else None),
        ("memory", page.bytes_text(seen.get("environment.memory_bytes"))),
        ("system", seen.get("environment.platform")),
        ("Python", seen.get("environment.python")),
        *(seen.get("environment.packages") or {}).items(),
        ("code", f"{code[:12]}{dirty}" if code else None),
        ("between the products", seen.get("engine.backend.steps")),
        ("attention", seen.get("engine.backend.attention")),
        ("rows of a pass at most", plan.get("budget_rows")),
        ("K/V slots", plan.get("slots")),
        ("most new tokens", seen.get("arguments.max_new_tokens")),
    ]
    return [(label, value) for label, value in pairs if value not in (None, "", "–")]


def _hash(value: str | None) -> str | None:
    return f"{value[:16]}…" if value else None


def _repeat(seen: Facts) -> list[tuple[str, str]]:
    """Headings, and the commands below them, by which the run is repeated or continued."""
    commit, command = seen.get("code.commit"), seen.get("command") or []
    again = shlex.join(map(str, command))
    checkout = f"git checkout {commit[:12]}\n" if commit else ""
    lines = [("The same command on the same code", checkout + again)] if again else []
    if seen.get("state") == run_folder.FINISHED:
        lines.append(
            ("The same run, offline, compared to the token", f"invoke reproduce --run {shlex.quote(seen.folder.name)}")
        )
    else:
        lines.append(("Go on with it", f"invoke run --resume {shlex.quote(seen.folder.name)}"))
    return lines
