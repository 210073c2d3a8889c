"""The document that explains the methods: `docs/method.md` with the figures of one run filled in, and its pictures.

The template says `{{ name }}` where a figure stands (`verify/run_figures.py` has them). A picture whose figures are not
there is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.contest.rules.source_rules import METHOD as TEMPLATE
from pipeline.contest.submit import pictures
from pipeline.contest.verify import documents, run_figures
from pipeline.errors import FormError

TEXT, PDF, LEADERBOARD, ROWS, COST = "method.md", "method.pdf", "leaderboard.png", "method-rows.png", "method-cost.png"
_PICTURE = re.compile(r"^!\[[^\]]*\]\(([^)]+)\)\n\n?", re.MULTILINE)


def make(manifest: Mapping[str, Any], source: Mapping[str, bytes], about: run_figures.About) -> dict[str, bytes]:
    """The files by their names. Raises FormError: F601 there is no template, F602 it asks for an unknown figure."""
    from pipeline.contest.submit import method_pdf  # noqa: PLC0415 - reportlab

    drawn = {LEADERBOARD: pictures.leaderboard(manifest, about.team.name, about.commit, about.rehearsal)}
    engine = manifest["engine"]
    if "stats" in engine:
        drawn[ROWS] = pictures.rows(engine["stats"])
    if engine.get("cost"):
        drawn[COST] = pictures.cost(engine["cost"])
    text = fill(template(source), run_figures.figures(manifest, source, about), drawn)
    keywords = documents.keywords(manifest["sections"][0]["outputs_sha256"])
    return {**drawn, TEXT: text.encode(), PDF: method_pdf.make(text, drawn, about.title, keywords)}


def template(source: Mapping[str, bytes]) -> str:
    """The text of docs/method.md in a source tree. Raises FormError (F601)."""
    try:
        return source[TEMPLATE].decode("utf-8")
    except (KeyError, UnicodeDecodeError) as error:
        raise FormError(
            "F601",
            "the document that explains the methods is missing",
            where=TEMPLATE,
            expected="a text in UTF-8, with {{ name }} where a figure of the run stands",
            actual=type(error).__name__,
            fix="write it, and commit it",
        ) from error


def fill(text: str, known: Mapping[str, str], drawn: Mapping[str, bytes]) -> str:
    """The template with its figures. Raises FormError (F602)."""

    def figure(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise FormError(
                "F602",
                f"the document asks for a figure named {match[1]!r}, which no run has",
                where=f"{TEMPLATE} line {text.count(chr(10), 0, match.start()) + 1}",
                expected=", ".join(sorted(known)),
                fix="name one of them, or write the number itself",
            )
        return known[match[1]]

    kept = _PICTURE.sub(lambda match: match[0] if match[1] in drawn else "", text)
    return run_figures.FIELD.sub(figure, kept)
