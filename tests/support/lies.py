"""Attacks on a good submission, one each: what a liar changes in it, by name.

`EDITS` put other values into the two JSON files; `CHANGES` do more. `support/forgeries.py` has those that the audit
holds against single checks.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from support import papers
from support.audited import METHOD
from support.drafts_of_submissions import Draft, put_source, retold, source_of

Edits = dict[str, Any]
"""Dotted path, beginning with `manifest` or `submission`, to the new value."""


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def put(draft: Draft, path: str, value: object) -> None:
    root, *parts = path.split(".")
    place = {"manifest": draft.manifest, "submission": draft.submission}[root]
    for part in parts[:-1]:
        place = place[part]
    place[parts[-1]] = value


def put_all(edits: Edits, draft: Draft) -> None:
    for path, value in edits.items():
        put(draft, path, value)


EDITS: dict[str, Edits] = {
    "an H100 in the environment": {
        "manifest.environment.gpu": "NVIDIA H100 80GB HBM3",
        "manifest.environment.processor": "AMD EPYC 9654",
        "manifest.environment.cores": 192,
    },
    "more memory used than the board has": {"manifest.peak_memory.host_bytes": 100 << 30},
    "others' share of the processor not said": {"manifest.telemetry.others_share": None},
    "an image reference without its digest": {"submission.image": {"reference": "x@sha256:", "digest": None}},
    "an argument nested without end": {"manifest.arguments.x": nested(400)},
    "an extra key nested without end": {"manifest.extra": nested(400)},
    "our engine said to be the reference": {"manifest.engine": {"name": "reference"}},
    "a data set of another name": {
        "manifest.dataset.name": "Official final ranking",
        "submission.dataset.name": "Official final ranking",
    },
    "a data set without a name": {"manifest.dataset.name": "", "submission.dataset.name": ""},
    "two names of the model": {"submission.model.name": "gpt-5"},
    "two names of the data set": {"submission.dataset.name": "other set"},
    "a team's name that reads backwards": {"submission.team.name": "abc\u202egnp.exe"},
    "a team's name of stacked accents": {"submission.team.name": "Z" + "\u0335\u0321\u0310" * 26},
    "a member three times in look-alike letters": {"submission.team.members": ["Kim", "K\u0456m", "kim"]},
    "a time of nearly infinity": {"manifest.elapsed_s": 1e308, "manifest.phases_s.timed": [1e308, 1e308]},
    "a negative time": {"manifest.elapsed_s": -1.0},
    "a data set of no rows": {"manifest.dataset.rows": 0, "submission.dataset.rows": 0},
    "a data set of 2^62 rows": {"manifest.dataset.rows": 2**62, "submission.dataset.rows": 2**62},
    "a version with a hidden letter": {"manifest.environment.packages.torch": "2.3.0\u202e"},
    "bytes received without an interface": {
        "manifest.network": {"interfaces": [], "received_bytes": 10**9, "sent_bytes": 10**9}
    },
    "fewer than no bytes received": {
        "manifest.network": {"interfaces": ["eth0"], "received_bytes": -1, "sent_bytes": 0}
    },
    "a run that was gone on with": {"manifest.resumed": True},
    "another data set asked for": {"manifest.request.dataset": "other.jsonl", "manifest.request.model": "tinyllama"},
    "four bits asked for": {"manifest.request.dtype": "int4"},
    "fewer than no allocations failed": {"manifest.engine.stats.failed_allocations": -5},
    "weights of eight bits in the engine": {"manifest.engine.weights": "int8"},
    "a verdict and an accuracy of one's own": {
        "submission.verdict": "VALID",
        "manifest.accuracy": {"right": 6, "of": 6},
    },
    "a name that is markup": {"manifest.engine.name": "<script>"},
    "a team's name that is markup": {
        "submission.team": {"name": "<img src=x onerror=alert(1)>", "members": ["<script>alert(2)</script>"]}
    },
    "a run's name that is markup": {"submission.run": "<script>alert(1)</script>\x1b[31m"},
    "notes that are markup": {"manifest.verdict.notes": ["\x1b[2J<script>alert(1)</script>"]},
    "a GPU's name that is markup": {"manifest.environment.gpu": "<b>Orin</b>\u202e\x1b[31m"},
    "a rehearsal": {"submission.rehearsal": True},
    "a rehearsal without an image or a word": {
        "submission.rehearsal": True,
        "submission.declarations": {},
        "submission.image": {"reference": None, "digest": None},
    },
    "declarations of no rules": {
        "submission.declarations.weights": True,
        "submission.declarations.device": True,
    },
    "weights that call themselves four bits": {"manifest.weights.quantised": "int4, proudly"},
}


def sooner(draft: Draft, share: float) -> None:
    """Every time of the run multiplied by `share`, consistently."""
    told = draft.manifest
    phases, line, cost = told["phases_s"], told["timeline_s"], told["engine"]["cost"]
    for key in ("load", "warm_up", "attestation"):
        phases[key] *= share
    phases["timed"] = [each * share for each in phases["timed"]]
    for key in ("load", "warm_up", "telemetry", "attestation"):
        line[key] = [each * share for each in line[key]]
    line["timed"] = [[each * share for each in pair] for pair in line["timed"]]
    told["elapsed_s"] *= share
    told["engine"]["stats"]["passes_s"] *= share
    cost["elapsed_s"] = [each * share for each in cost["elapsed_s"]]
    told["telemetry"]["elapsed_s"] *= share
    for row in draft.rows:
        row["at_s"] *= share
    for sample in draft.telemetry[1:]:
        sample[0] = f"{float(sample[0]) * share:.3f}"
    began, ended = (datetime.fromisoformat(told[key]) for key in ("began_utc", "ended_utc"))
    told["ended_utc"] = (began + (ended - began) * share).isoformat(timespec="milliseconds")


def moved_to(draft: Draft, began: datetime) -> None:
    told = draft.manifest
    took = datetime.fromisoformat(told["ended_utc"]) - datetime.fromisoformat(told["began_utc"])
    told["began_utc"] = began.isoformat(timespec="milliseconds")
    told["ended_utc"] = (began + took).isoformat(timespec="milliseconds")


def one_pass(draft: Draft) -> None:
    for section in draft.manifest["sections"]:
        section["passes"] = 1
    draft.manifest["engine"]["stats"]["passes"] = 1


def costs(draft: Draft, elapsed_s: float) -> None:
    cost = draft.manifest["engine"]["cost"]
    cost["elapsed_s"] = [elapsed_s] * len(cost["rows"])


def phases_of_no_time(draft: Draft) -> None:
    phases, line = draft.manifest["phases_s"], draft.manifest["timeline_s"]
    first, last = line["telemetry"][0], line["attestation"][1]
    for key, at in (("load", first), ("warm_up", first), ("attestation", last)):
        phases[key], line[key] = 0.0, [at, at]


def answers_at_once(draft: Draft) -> None:
    for row in draft.rows:
        row["at_s"] = 1e-9


def without_columns(draft: Draft, *endings: str) -> None:
    kept = [at for at, name in enumerate(draft.telemetry[0]) if not name.endswith(endings)]
    draft.telemetry = [[line[at] for at in kept] for line in draft.telemetry]


def column(draft: Draft, ending: str, value: str, first: int = 1) -> None:
    """Every sample of the channels whose names end so."""
    for at, name in enumerate(draft.telemetry[0]):
        if at and name.endswith(ending):
            for line in draft.telemetry[first:]:
                line[at] = value


def strange_channel(draft: Draft) -> None:
    for at, line in enumerate(draft.telemetry):
        line.append("1" if at else "cpu_load")


def counters_blank_but_first(draft: Draft) -> None:
    for ending in ("_events", "_held", "_alarm"):
        column(draft, ending, "", first=2)
    draft.manifest["verdict"]["state"] = "VALID with notes"


def clocks_unlocked(draft: Draft) -> None:
    for moment in draft.manifest["board"].values():
        moment["clocks_locked"] = False
    draft.manifest["verdict"]["state"] = "VALID with notes"


def slower_section_hidden(draft: Draft) -> None:
    """Run twice, told of the better."""
    told = draft.manifest
    told["request"]["repeat"] = 1
    for place in (told["phases_s"], told["timeline_s"]):
        place["timed"] = place["timed"][:1]
    told["sections"] = told["sections"][:1]
    told["elapsed_s"] = told["phases_s"]["timed"][0]
    stats = told["engine"]["stats"]
    stats["passes_s"], stats["passes"] = min(stats["passes_s"], told["elapsed_s"]), told["sections"][0]["passes"]


def section_of_a_third(draft: Draft) -> None:
    """Of two sections one from a cache; the middle of both is what counts."""
    told = draft.manifest
    timed = told["phases_s"]["timed"]
    timed[1] = timed[0] * 0.34
    pair = told["timeline_s"]["timed"][1]
    pair[1] = pair[0] + timed[1]
    told["elapsed_s"] = sum(timed) / 2
    told["engine"]["stats"]["passes_s"] = timed[1] * 0.9
    costs(draft, 1e-4)


def sections_apart(draft: Draft) -> None:
    """Two and a half seconds between two sections, in which nobody says what was done."""
    told, line = draft.manifest, draft.manifest["timeline_s"]
    line["timed"][1] = [each + 2.5 for each in line["timed"][1]]
    line["telemetry"][1] += 2.5
    line["attestation"] = [each + 2.5 for each in line["attestation"]]
    told["telemetry"]["elapsed_s"] += 2.5
    draft.telemetry[-1][0] = f"{float(draft.telemetry[-1][0]) + 2.5:.3f}"


def ended_before_it_began(draft: Draft) -> None:
    told = draft.manifest
    told["ended_utc"] = (datetime.fromisoformat(told["began_utc"]) - timedelta(seconds=1)).isoformat()


def no_outputs(draft: Draft) -> None:
    draft.rows.clear()
    draft.manifest["dataset"]["rows"] = draft.submission["dataset"]["rows"] = 0


def wall_clock_longer(draft: Draft) -> None:
    """By what a start and an end of the program may take."""
    told = draft.manifest
    told["ended_utc"] = (datetime.fromisoformat(told["ended_utc"]) + timedelta(seconds=4.9)).isoformat()


def load_of_minus_nothing(draft: Draft) -> None:
    draft.manifest["phases_s"]["load"] = -0.0
    draft.manifest["timeline_s"]["load"] = [draft.manifest["timeline_s"]["load"][1]] * 2


def engine_without_passes(draft: Draft) -> None:
    draft.manifest["engine"] = {"name": "reference"}
    for section in draft.manifest["sections"]:
        section["passes"] = 0


def another_teams_commit(draft: Draft) -> None:
    """A commit that nobody has, and a source that reads its answers from a file."""
    draft.manifest["code"]["commit"] = draft.submission["commit"] = "ab" * 20
    put_source(draft, {**source_of(draft), "pipeline/engine.py": (0o644, b"answers = open('/answers').read()\n")})


def board_with_a_key_more(draft: Draft) -> None:
    for moment in draft.manifest["board"].values():
        moment["board"]["extra"] = 1


def on_the_board(draft: Draft, **told: Any) -> None:
    for moment in draft.manifest["board"].values():
        moment["board"] |= told


def reference_out_of_order(draft: Draft) -> None:
    engine_without_passes(draft)
    draft.manifest["request"]["engine"] = "reference"
    moments = [row["at_s"] for row in draft.rows]
    draft.rows.sort(key=lambda row: -row["index"])
    for row, at_s in zip(draft.rows, moments, strict=True):
        row["at_s"] = at_s


def bill_of_another_lock(draft: Draft) -> None:
    bill = json.loads(draft.files["sbom.cdx.json"])
    bill["components"][0]["version"] = "0.0.1"
    draft.files["sbom.cdx.json"] = json.dumps(bill).encode()


def paper(old: str, new: str, keyword: str = "") -> Callable[[Draft], None]:
    return lambda draft: retold(draft, old, new, keyword)


def paper_of_objects(change: Callable[[bytes], bytes]) -> Callable[[Draft], None]:
    return lambda draft: draft.files.update({"method.pdf": change(draft.files["method.pdf"])})


def bomb(content: bytes) -> bytes:
    """The same paper with a page of a gigabyte, were it inflated."""
    blown = zlib.compressobj(9)
    page = b"".join(blown.compress(b"Q\n" * (1 << 19)) for _ in range(64)) + blown.flush()
    head = f"<<\n/Filter [ /FlateDecode ] /Length {len(page)}\n>>\nstream\n".encode()
    return papers.changed(content, 5, head + page + b"endstream\n")


def throttled(draft: Draft) -> None:
    draft.telemetry[-1][draft.telemetry[0].index("oc3_events")] = "7"


def file(name: str, content: bytes) -> Callable[[Draft], None]:
    return lambda draft: draft.files.update({name: content})


def sourced(name: str, content: bytes) -> Callable[[Draft], None]:
    return lambda draft: put_source(draft, {**source_of(draft), name: (0o644, content)})


def both(*changes: Callable[[Draft], None]) -> Callable[[Draft], None]:
    def change(draft: Draft) -> None:
        for each in changes:
            each(draft)

    return change


CHANGES: dict[str, Callable[[Draft], None]] = {
    "every time halved": lambda d: sooner(d, 0.5),
    "every time a third": lambda d: sooner(d, 0.34),
    "one pass for all": one_pass,
    "costs below nothing": lambda d: costs(d, -5.0),
    "phases of no time": phases_of_no_time,
    "all answers in the first nanosecond": answers_at_once,
    "a run of 1970": lambda d: moved_to(d, datetime(1970, 1, 1, tzinfo=timezone.utc)),
    "a run of 2099": lambda d: moved_to(d, datetime(2099, 1, 1, tzinfo=timezone.utc)),
    "a run of the year one": lambda d: moved_to(d, datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))),
    "an end before the beginning": ended_before_it_began,
    "the slower section hidden": slower_section_hidden,
    "a section of a third": section_of_a_third,
    "a pause between two sections": sections_apart,
    "an idle board": both(lambda d: column(d, "_W", "0"), lambda d: column(d, "load", "0")),
    "a channel of no known kind": strange_channel,
    "numbers beyond all measure": lambda d: column(d, "", "1e308"),
    "numbers below nothing": lambda d: column(d, "", "-1"),
    "no counter of throttling": lambda d: without_columns(d, "oc3_events"),
    "one counter of many": lambda d: without_columns(d, "_events", "gpu_2_held", "_crit_alarm"),
    "counters that fall silent": counters_blank_but_first,
    "a clock of nine gigahertz": lambda d: column(d, "gpu_MHz", "9000"),
    "a blanked counter of throttling": lambda d: column(d, "oc3_events", ""),
    "a counter that counts backwards": lambda d: column(d, "oc2_events", "3", first=2),
    "a PC's kernel": lambda d: on_the_board(d, kernel="6.8.0-48-generic"),
    "no kernel": lambda d: on_the_board(d, kernel=None),
    "memory that no board has": lambda d: on_the_board(d, memory_bytes=1 << 40),
    "a PC's processor": lambda d: put(d, "manifest.environment.machine", "x86_64"),
    "a pass of a nanosecond": lambda d: costs(d, 1e-9),
    "a pass of no rows": lambda d: put(d, "manifest.engine.cost.rows", [0]),
    "no word of drafts": lambda d: d.manifest["engine"]["stats"].pop("drafts_accepted"),
    "the reference's passes without its order": reference_out_of_order,
    "a clock of one megahertz": lambda d: column(d, "gpu_MHz", "1"),
    "colder than space": lambda d: column(d, "gpu-thermal_C", "-200"),
    "clocks not locked": clocks_unlocked,
    "no answers at all": no_outputs,
    "a commit of nowhere": another_teams_commit,
    "a board with a key more": board_with_a_key_more,
    "throttled, on a board with a key more": both(throttled, board_with_a_key_more),
    "sampled, with a key nested without end": both(
        lambda d: put(d, "manifest.arguments.do_sample", True), lambda d: put(d, "manifest.extra", nested(400))
    ),
    "an engine that makes no passes": engine_without_passes,
    "a load of minus nothing": load_of_minus_nothing,
    "five seconds more by the wall clock": wall_clock_longer,
    "throttled, and called a rehearsal": both(lambda d: put(d, "submission.rehearsal", True), throttled),
    "a picture that is a script": file("leaderboard.png", b"<svg onload=alert(1)>"),
    "a picture cut short": file("leaderboard.png", papers.picture()[:-8]),
    "a picture with a page behind it": file("leaderboard.png", papers.picture() + b"<script>alert(1)</script>"),
    "a paper of other figures": paper("", "", keyword="0" * 64),
    "a paper of another time": paper(r" in [\d.]+ s", " in 0.001 s"),
    "a paper with another time beside": paper(r"( in [\d.]+ s)", r"\1, in truth 0.0001 s"),
    "a paper of another score": paper(r"(\d+) of (\d+), [\d.]+%", r"\2 of \2, 100.0%"),
    "a paper of less memory": paper(r"[\d.]+ GB", "0.01 GB"),
    "a paper of more prompts": paper(r"\d+ prompts", "3,000 prompts"),
    "a paper of another commit": paper(r"commit \w+", "commit " + "0123456789ab"),
    "a paper of another model": paper(r"Model [^,]+,", "Model gpt-5,"),
    "a paper of another team": paper(r"Blue: how", "Red: how"),
    "a paper with another team's foot": paper(r"Blue: method", "Red: method"),
    "a paper whose page cannot be read": paper_of_objects(
        lambda content: papers.changed(content, 5, papers.stream(b"BI /W 1 ID x EI\n"))
    ),
    "a paper of another program": paper_of_objects(
        lambda content: papers.changed(content, 6, b"<<\n/Lang (en) /Pages 7 0 R /Type /Catalog\n>>\n")
    ),
    "a paper with a later version behind it": paper_of_objects(
        lambda content: content + content[content.index(b"xref\n") :].replace(b"<<\n", b"<<\n/Prev 9\n", 1)
    ),
    "a paper that is a bomb": paper_of_objects(bomb),
    "a paper of too many objects": paper_of_objects(lambda content: papers.changed(content, 9, b"<<\n>>\n", 2000)),
    "a method in Markdown of another time": file(
        "method.md", b"# Blue: how 6 prompts are answered in 0.0001 s\n" + b"words " * 200
    ),
    "a time that the template itself tells": both(
        another_teams_commit,
        sourced("docs/method.md", (METHOD + " It took 0.0001 s.").encode()),
        paper(r"( in [\d.]+ s)", r"\1, in truth 0.0001 s"),
    ),
    "a paper of the team's own beside": file("paper.pdf", b"%PDF-1.4\n"),
    "a bill of another lock": bill_of_another_lock,
    "a digest that is a word": lambda d: put(d, "submission.image.digest", "latest"),
    "a paper that is a page": file("method.pdf", b"<html><script>alert(1)</script>"),
    "a bill of materials of nothing": file("sbom.cdx.json", b"{}"),
    "an image of one byte": both(
        lambda d: put(d, "submission.image", {"reference": None, "digest": None}), file("image.tar", b"x")
    ),
    "a log with a terminal's escapes": lambda d: d.files.update(
        {"run/run.log": d.files["run/run.log"] + b"\x1b[2J\x1b]0;pwned\x07\n"}
    ),
    "a program among the run's files": both(
        file("run/virus.exe", b"MZ" + bytes(1000)), file("verdict.json", b"{}"), file("run/verdict.html", b"<script>")
    ),
    "a hidden letter in a source's name": sourced("pipeline/\u200bx.py", b"1\n"),
    **{name: partial(put_all, edits) for name, edits in EDITS.items()},
}
"""All attacks by name."""

CAUGHT_BY: dict[str, set[str]] = {
    "a clock of nine gigahertz": {"channels"},
    "a blanked counter of throttling": {"channels"},
    "a counter that counts backwards": {"channels"},
    "a PC's kernel": {"machine"},
    "no kernel": {"machine"},
    "memory that no board has": {"machine"},
    "a PC's processor": {"machine"},
    "a pass of a nanosecond": {"costs"},
    "a pass of no rows": {"costs"},
    "no word of drafts": {"passes"},
    "the reference's passes without its order": {"passes"},
    "a picture cut short": {"documents"},
    "a picture with a page behind it": {"documents"},
    "a paper of other figures": {"documents"},
    "a paper of another time": {"documents"},
    "a paper with another time beside": {"documents"},
    "a paper of another score": {"documents"},
    "a paper of less memory": {"documents"},
    "a paper of more prompts": {"documents"},
    "a paper of another commit": {"documents"},
    "a paper of another model": {"documents"},
    "a paper of another team": {"documents"},
    "a paper with another team's foot": {"documents"},
    "a method in Markdown of another time": {"documents"},
    "a bill of another lock": {"documents"},
    "a digest that is a word": {"rule-image"},
    "one pass for all": {"passes"},
    "costs below nothing": {"costs"},
    "phases of no time": {"phases"},
    "all answers in the first nanosecond": {"answer-times"},
    "a run of 1970": {"wall-clock"},
    "a run of 2099": {"wall-clock"},
    "a run of the year one": {"wall-clock"},
    "an end before the beginning": {"wall-clock"},
    "the slower section hidden": {"request"},
    "a section of a third": {"repeats"},
    "a pause between two sections": {"timeline"},
    "an idle board": {"channels"},
    "a channel of no known kind": {"telemetry", "board", "channels"},
    "numbers beyond all measure": {"board", "channels"},
    "numbers below nothing": {"board", "channels"},
    "no counter of throttling": {"channels"},
    "one counter of many": {"channels"},
    "counters that fall silent": {"channels"},
    "a clock of one megahertz": {"channels"},
    "colder than space": {"channels"},
    "no answers at all": {"answer-times", "log", "outputs-hash", "rows", "score", "work", "accuracy", "reference"},
    "throttled, on a board with a key more": {"board"},
    "sampled, with a key nested without end": {"manifest"},
    "an engine that makes no passes": {"passes", "request"},
    "a load of minus nothing": {"phases"},
    "throttled, and called a rehearsal": {"board"},
    "a picture that is a script": {"documents"},
    "a paper that is a page": {"documents"},
    "a bill of materials of nothing": {"documents"},
    "an image of one byte": {"documents"},
    "a program among the run's files": {"listing"},
    "a hidden letter in a source's name": {"source", "rule-no-secrets", "rule-script", "rule-third-party"},
    "an H100 in the environment": {"machine"},
    "more memory used than the board has": {"resident"},
    "others' share of the processor not said": {"board"},
    "an image reference without its digest": {"rule-image"},
    "an argument nested without end": {"manifest"},
    "an extra key nested without end": {"manifest"},
    "our engine said to be the reference": {"passes", "request"},
    "a data set of another name": {"request"},
    "a data set without a name": {"request"},
    "two names of the model": {"request"},
    "two names of the data set": {"request"},
    "a team's name that reads backwards": {"rule-team"},
    "a team's name of stacked accents": {"rule-team"},
    "a time of nearly infinity": {"phases", "timeline"},
    "a negative time": {"phases"},
    "a data set of no rows": {"rows", "work"},
    "a data set of 2^62 rows": {"rows"},
    "a version with a hidden letter": {"rule-framework"},
    "bytes received without an interface": {"rule-network"},
    "fewer than no bytes received": {"rule-network"},
    "a run that was gone on with": {"manifest"},
    "another data set asked for": {"request"},
    "four bits asked for": {"request"},
    "fewer than no allocations failed": {"manifest"},
    "weights of eight bits in the engine": {"dtype"},
    "a name that is markup": {"request"},
    "a GPU's name that is markup": {"machine"},
}
"""An attack, and every check that must fail, or cannot tell for want of what the attack leaves out."""

HARMLESS = {
    "a board with a key more",
    "clocks not locked",
    "a commit of nowhere",
    "a log with a terminal's escapes",
    "a verdict and an accuracy of one's own",
    "a team's name that is markup",
    "a run's name that is markup",
    "notes that are markup",
    "a rehearsal",
    "a rehearsal without an image or a word",
    "declarations of no rules",
    "weights that call themselves four bits",
    "five seconds more by the wall clock",
}
"""What makes no submission invalid: no rule asks for locked clocks (the check `board` notes it), a team's own commit is
for people, a rehearsal says that it is one, markup is shown as letters, nobody reads the rest."""
