"""`verdict.html`: a verdict as one page that needs nothing else, for the organiser's records and for the team.

Made of `verdict.json` alone. Everything in it came from a stranger; the template escapes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.html import page

STATES = ("fail", "unknown", "human", "warn", "ok")
"""States of checks, in the order in which they deserve a look."""


def html(verdict: Mapping[str, Any]) -> str:
    """Render the page of a verdict, given the content of `verdict.json`."""
    states = Counter(each["state"] for each in verdict["checks"])
    counts = [(state, states[state]) for state in STATES if states[state]]
    again = verdict["rerun"]
    rerun_facts = [] if again is None else _rerun_facts(again)
    return page.render("verdict.html", verdict=verdict, facts=_facts(verdict), counts=counts, rerun_facts=rerun_facts)


def _facts(verdict: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the submission's facts, without those that could not be read."""
    team = verdict["team"]
    facts = [("team", team["name"]), ("members", ", ".join(team["members"]))] if team else []
    keys = ("model", "dataset", "dataset_sha256", "device", "commit")
    facts += [(key.replace("_", " "), str(verdict[key])) for key in keys if verdict.get(key)]
    times = {"ended": verdict.get("submitted_utc"), "received": verdict.get("received_utc")}
    return facts + [(name, _moment(str(time))) for name, time in times.items() if time]


def _moment(utc: str) -> str:
    """A time in words that break between them, to the second."""
    return f"{utc[:10]} {utc[11:19]} UTC" if utc.endswith(("+00:00", "Z")) else utc


def _rerun_facts(again: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("the submission's time", f"{page.decimals(again['claimed_s'])} s")]
    if again["median_s"] is not None:
        facts += [
            ("median of the runs", f"{page.decimals(again['median_s'])} s"),
            ("median to the submission's time", f"{again['ratio']:.3f}"),
            ("spread of the runs", page.percent(again["spread"])),
        ]
    rows = ", ".join(map(str, again["differing"])) or "none"
    return [*facts, ("rows with other answers", rows)]
