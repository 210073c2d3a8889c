"""`verdict.html`: a verdict as one page that needs nothing else, for the organiser's records and for the team.

Made of `verdict.json` alone. Everything in it came from a stranger, and is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #8884; --ok: #2a7d46; --fail: #b3261e; --ask: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --ok: #6fce8c; --fail: #ff8a80; --ask: #f0c000; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { font-size: 2rem; font-weight: 700; } .VALID { color: var(--ok); } .INVALID { color: var(--fail); }
.CANNOT { color: var(--ask); } .ok { color: var(--ok); } .fail { color: var(--fail); }
.unknown, .human { color: var(--ask); }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
td { overflow-wrap: anywhere; } td:first-child, td:nth-child(2) { white-space: nowrap; }
pre { overflow-x: auto; border: 1px solid var(--line); padding: .6rem; }
@media print { body { margin: 0; max-width: none; } }
"""

WORDS = {"ok": "ok", "fail": "failed", "unknown": "cannot tell", "human": "people decide"}


def html(told: Mapping[str, Any]) -> str:
    """The page of a verdict, as `verdict.json` has it."""
    title = f"{told['verdict']}: {told['submission']}"
    parts = [
        f"<h1>{_(told['submission'])}{' (a rehearsal)' * bool(told['rehearsal'])}</h1>",
        f'<p class="verdict {told["verdict"].split()[0]}">{_(told["verdict"])}</p>',
        _reasons(told),
        "<h2>What it says of itself</h2>",
        "<p>Time, device and names are the submission's; accuracy was counted anew.</p>",
        _table(None, _facts(told)),
        "<h2>Checks</h2>",
        _table(("check", "", "found", "wanted", "class"), [_check(each) for each in told["checks"]]),
        _rerun(told["rerun"]),
    ]
    head = (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_(title)}</title>\n<style>{STYLE}</style>\n"
    )
    return head + "\n".join(part for part in parts if part) + "\n</html>\n"


def _(value: object) -> str:
    return escape(str(value))


def _reasons(told: Mapping[str, Any]) -> str:
    if not told["reasons"]:
        return "<p>Every check that a program can make came out well.</p>"
    kind = f"<p>Class: {_(told['class'])}</p>" if told["class"] else ""
    return f"{kind}<ul>{''.join(f'<li>{_(reason)}</li>' for reason in told['reasons'])}</ul>"


def _facts(told: Mapping[str, Any]) -> list[list[str]]:
    facts: list[tuple[str, object]] = []
    if told["team"]:
        facts.append(("team", f"{told['team']['name']} ({', '.join(told['team']['members'])})"))
    if told["time_s"] is not None:
        facts.append(("time", f"{told['time_s']:.3f} s for {told['prompts']} prompts"))
    if told["s_per_prompt"] is not None:
        facts.append(("a prompt", f"{told['s_per_prompt']:.4f} s"))
    if told["accuracy"]:
        low, high = told["accuracy"]["interval_95"]
        counted = f"{told['accuracy']['right']} of {told['accuracy']['of']} by the rule {told['accuracy']['rule']}"
        facts.append(("accuracy", f"{counted}: {told['accuracy']['share']:.2%} (95 %: {low:.1%} to {high:.1%})"))
    facts += [(key, told[key]) for key in ("model", "dataset", "device", "commit", "submitted_utc") if told[key]]
    return [[f"<th>{_(name)}</th>", f"<td>{_(value)}</td>"] for name, value in facts]


def _check(each: Mapping[str, Any]) -> list[str]:
    state = f'<td class="{each["state"]}">{WORDS[each["state"]]}</td>'
    return [
        f"<td>{_(each['id'])}</td>",
        state,
        *(f"<td>{_(each[key] or '')}</td>" for key in ("found", "wanted", "class")),
    ]


def _table(head: tuple[str, ...] | None, rows: list[list[str]]) -> str:
    first = f"<tr>{''.join(f'<th>{_(name)}</th>' for name in head)}</tr>" if head else ""
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="wide"><table>{first}\n{body}</table></div>'


def _rerun(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return ""
    rows = [
        [f"<td>{number}</td>", f"<td>status {_(one['status'])}</td>", f"<td>{_(one['elapsed_s'])} s</td>"]
        for number, one in enumerate(told["runs"], start=1)
    ]
    tails = "".join(
        f"<h3>Run {number}, the end of {stream}</h3><pre>{_(one[f'{stream}_tail'])}</pre>"
        for number, one in enumerate(told["runs"], start=1)
        for stream in ("stdout", "stderr")
        if one[f"{stream}_tail"].strip()
    )
    summary = {key: told[key] for key in ("median_s", "claimed_s", "ratio", "spread", "differing")}
    return (
        f"<h2>Run again, from its {_(told['how'])}</h2><pre>{_(told['command'])}</pre>"
        f"<p>{_(json.dumps(summary))}</p>{_table(('run', 'ended', 'timed section'), rows)}{tails}"
    )
