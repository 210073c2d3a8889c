"""Whether a submission's paper tells the figures of its run: its text is read back and held against the manifest.

A paper is the packer's: `docs/method.md` of the source with the run's figures in it. What it tells besides is the
team's to say, and people's to read; a figure of another run is not. Nor is a paper taken for good whose text cannot be
read: that is people's too. Pictures are not looked into.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.contest.archive import pdf_text, strict_json
from pipeline.contest.archive.pdf_text import Unreadable
from pipeline.contest.checks.submitted import Submitted
from pipeline.contest.rules.source_rules import METHOD
from pipeline.contest.team import TeamWords
from pipeline.contest.verify import documents, run_figures

_NUMBER = r"(?<![\w.,-])(\d[\d,]{0,20}(?:\.\d{1,20})?)"
STATED = {
    "time": re.compile(_NUMBER + r" ?([nµm]?s|sec|seconds?|min|minutes?|h|hours?)\b"),
    "score": re.compile(r"(?<![\w.,-])(\d[\d,]{0,20}) (?:out )?of (\d[\d,]{0,20})\b(?! rows)"),
    "share": re.compile(r"\d of \d[\d,]{0,20}, (\d[\d.]{0,20}) ?(%)"),
    "memory": re.compile(_NUMBER + r" ?([kKMGT]i?B)\b"),
    "prompts": re.compile(r"(?<![\w.,-])(\d[\d,]{0,20}) (prompt)s?\b(?! tokens)"),
    "commit": re.compile(r"(?i:\bcommit) ()([0-9a-f]{7,64})\b"),
}
"""Kind to how a text states such a figure."""
HEADLINES = {
    "team": "{team}",
    "model": "{model}",
    "commit": "{commit}",
    "prompts": "{prompts} prompts",
    "time_s": "{time_s} s",
    "right": "{right} of {scored}",
    "peak_memory": "{peak_memory}",
}
"""The figures that a paper is looked through for: the field of the template to the words."""
_NAMED_FIRST = re.compile(r"#\s*\{\{ *team *\}\}")
_ESCAPED = re.compile(r"\\(?=[^\w\s])")


@dataclass(frozen=True)
class Held:
    """The outcome: what is wrong, and what people must look at."""

    wrong: tuple[str, ...] = ()
    people: tuple[str, ...] = ()


def held(submitted: Submitted, source: Mapping[str, bytes] | None) -> Held:
    """Hold the texts of method.pdf and method.md against the run."""
    wrong: list[str] = []
    people: list[str] = []
    own = sorted(name for name in submitted.submission.files if _is_their_own(name))
    people += [f"{name}: a paper of the team's own" for name in own]
    try:
        told = _Told.of(submitted, source)
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        return Held(people=(*people, f"no figures to hold them against: {type(error).__name__}"))
    for name, read in ((documents.PAPER, _paper), (documents.TEXT, _text)):
        path = submitted.folder / name
        if not path.is_file() or path.stat().st_size > documents.MOST_BYTES:
            continue
        try:
            text, feet = read(path.read_bytes(), told.about.title)
        except Unreadable as error:
            people.append(f"{name}: its text cannot be read: {error}")
            continue
        wrong += [f"{name}: {why}" for why in (*feet, *told.contradicted(text))]
        if name == documents.PAPER:
            wrong += [f"{name}: {why}" for why in told.titled(text)]
            for asked, why in told.missing(text):
                (wrong if asked else people).append(f"{name}: {why}")
        people += [f"{name}: {why}" for why in told.in_own_words(text)]
    return Held(tuple(wrong), tuple(people))


def _is_their_own(name: str) -> bool:
    return "/" not in name and name.endswith((".pdf", ".md")) and name not in (documents.PAPER, documents.TEXT)


def _paper(content: bytes, title: str) -> tuple[str, list[str]]:
    """Body and faults of a PDF. Each page begins with its number and foot."""
    blocks, wrong = [], []
    for number, page in enumerate(pdf_text.pages(content), start=1):
        if _squeezed("".join(page[:2])) != _squeezed(f"{number}{title}"):
            wrong.append(f"the foot of page {number} is not {title!r}")
        blocks += page[2:]
    return "\n".join(blocks), wrong[:1]


def _text(content: bytes, title: str) -> tuple[str, list[str]]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable("it is not UTF-8") from error
    if len(text) > pdf_text.MOST_TEXT:
        raise Unreadable(f"more than {pdf_text.MOST_TEXT:,} characters")
    return _bare(text), []


def _bare(text: str) -> str:
    """Markdown without the marks that may stand within a statement."""
    return re.sub(r"(?<!\n)\n(?!\n)|[*`]+", lambda mark: " " if mark[0] == "\n" else "", _ESCAPED.sub("", text))


def _squeezed(text: str) -> str:
    """The letters that a PDF and Markdown have in common: no blanks, and no marks."""
    return re.sub(r"[\s*`]+", "", text)


def statements(text: str) -> dict[tuple[str, str], str]:
    """The figures that a text states: kind and value, to the words of it."""
    return {
        (kind, " ".join(match.groups()).replace(",", "")): match[0]
        for kind, form in STATED.items()
        for match in form.finditer(text)
    }


@dataclass(frozen=True)
class _Told:
    """The figures that this run's paper may tell."""

    about: run_figures.About
    known: Mapping[str, str]
    template: str
    of_the_run: frozenset[tuple[str, str]]
    literal: frozenset[tuple[str, str]]
    """Figures that the team wrote into its template itself."""

    @classmethod
    def of(cls, submitted: Submitted, source: Mapping[str, bytes] | None) -> _Told:
        """Made of manifest and source. Raises ArithmeticError, AttributeError, IndexError, KeyError, TypeError or
        ValueError where one of them lacks something."""
        if source is None:
            raise KeyError("source")
        claims = submitted.submission
        manifest = strict_json.loads((submitted.run / "manifest.json").read_bytes())
        about = run_figures.About(
            team=TeamWords(claims.team.name, tuple(claims.team.members), {}, claims.image.reference),
            run=claims.run,
            commit=claims.commit,
            committed_s=0,
            rehearsal=claims.rehearsal,
            accuracy_words=None,
            image=claims.image.reference,
        )
        known = {name: _bare(value) for name, value in run_figures.figures(manifest, source, about).items()}
        template = source[METHOD].decode("utf-8")[: pdf_text.MOST_TEXT]
        return cls(about, known, template, frozenset(_of_the_run(known)), frozenset(_literals(template)))

    def contradicted(self, text: str) -> Iterator[str]:
        allowed = self.of_the_run | self.literal
        foreign = [
            words for found, words in statements(text).items() if found not in allowed and not self._names(found)
        ]
        if foreign:
            yield f"of another run: {', '.join(map(repr, foreign[:3]))}"

    def titled(self, text: str) -> Iterator[str]:
        """The fault of a title that is to begin with the team's name."""
        named = _NAMED_FIRST.match(self.template.lstrip())
        if named and not _squeezed(text).startswith(_squeezed(self.known["team"])):
            yield f"its title does not begin with {self.known['team']!r}"

    def in_own_words(self, text: str) -> Iterator[str]:
        stated = statements(text)
        own = [stated[found] for found in self.literal - self.of_the_run if found in stated and not self._names(found)]
        if own:
            yield f"the team's own figures: {', '.join(map(repr, sorted(own)[:3]))}"

    def missing(self, text: str) -> Iterator[tuple[bool, str]]:
        """Whether the template asks for it, and the words."""
        asked = set(run_figures.FIELD.findall(self.template))
        stated, bare = statements(text), _squeezed(text)
        for field, form in HEADLINES.items():
            words = form.format(**self.known)
            sought = statements(words)
            there = sought.keys() <= stated.keys() if sought else _squeezed(words) in bare
            if not there and run_figures.UNSEEN not in words:
                yield field in asked, f"it does not tell {words!r}"

    def _names(self, found: tuple[str, str]) -> bool:
        """Whether it is this run's commit, however many of its digits."""
        kind, value = found
        return kind == "commit" and self.about.commit.startswith(value.strip())


def _of_the_run(known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    values: dict[str, Any] = dict(known)
    for name, value in values.items():
        yield from statements(value)
        if name.endswith("_s") or name == "s_per_prompt":
            yield from statements(f"{value} s")
    yield from statements("{right} of {scored}, {share}\n{prompts} prompts".format(**values))


def _literals(template: str) -> Iterator[tuple[str, str]]:
    yield from statements(_bare(run_figures.FIELD.sub("…", template)))
