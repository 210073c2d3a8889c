"""Checks of the rules that are decided by the source and by the team's own words."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Iterator

from pipeline.check import HUMAN, CheckResult
from pipeline.contest import look_alike
from pipeline.contest.numbers import Contest
from pipeline.contest.rules.evidence import Evidence, decide, fail, unknown
from pipeline.contest.source import bounds, imports, secrets, third_party
from pipeline.contest.team import ADDRESS

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
SCRIPT, METHOD = "test_script.py", "docs/method.md"
FEWEST_WORDS = 150
"""Words that the explanation of the method must have."""
SHOWN = 3
MOST_ACCENTS = 2
"""On one letter, beside the one that it is written with."""


def script(evidence: Evidence, _contest: Contest) -> CheckResult:
    """Check the structure of the organiser's script: data are loaded and answered between the two clock readings."""
    expected = f"{SCRIPT}: load_dataset and pipe between the clock's start and end, paths from sys.argv"
    if SCRIPT not in evidence.source:
        return fail(f"there is no {SCRIPT}", expected)
    try:
        bounds.check("Python", evidence.source[SCRIPT])
        tree = ast.parse(evidence.source[SCRIPT])
    except imports.UNREADABLE as error:
        return fail(f"it cannot be read: {error}", expected)
    clock = sorted(line for name, line in _calls(tree) if name in {"time", "perf_counter", "perf_counter_ns"})
    if len(clock) != 2:
        return fail(f"the clock is read {len(clock)} times", expected)
    timed = {name for name, line in _calls(tree) if clock[0] < line < clock[1]}
    before = {name for name, line in _calls(tree) if line < clock[0]}
    missing = {"load_dataset", "pipe"} - timed
    early = {"load_dataset", "open", "read_text", "read_bytes"} & before
    if missing or early:
        faults = [f"{name} is not under the clock" for name in sorted(missing)]
        return fail("; ".join([*faults, *(f"{name} comes before it" for name in sorted(early))]), expected)
    arguments = any(isinstance(node, ast.Attribute) and node.attr == "argv" for node in ast.walk(tree))
    return decide(arguments, "four sections" if arguments else "paths are no arguments", expected)


def image(evidence: Evidence, _contest: Contest) -> CheckResult:
    expected = "an address with a digest, or the image itself"
    if evidence.image_packed:
        return decide(True, "it is packed", expected)
    if evidence.team is None or evidence.team.image is None:
        return fail("no image is named", expected)
    if not ADDRESS.fullmatch(evidence.team.image):
        return fail(f"{evidence.team.image} is no address", expected)
    named, at, digest = evidence.team.image.partition("@")
    digests = [each for each in (digest if at else None, evidence.image_digest) if each is not None]
    if not digests:
        return unknown(f"{named}, without its digest", expected)
    if not all(DIGEST.fullmatch(each) for each in digests) or len(set(digests)) > 1:
        return fail(f"{named}: {' and '.join(digests)[:200] or 'nothing'} is no digest", expected)
    return decide(True, evidence.team.image, expected)


def method(evidence: Evidence, _contest: Contest) -> CheckResult:
    words = len(evidence.source.get(METHOD, b"").split())
    return decide(words >= FEWEST_WORDS, f"{METHOD}: {words} words", f"{FEWEST_WORDS} or more")


def no_secrets(evidence: Evidence, _contest: Contest) -> CheckResult:
    if not evidence.source:
        return unknown("there is no source", "no access token in the source")
    holds = [path for path, content in evidence.source.items() if secrets.tokens_in(content)]
    return decide(not holds, _some(holds) or "none found", "no access token in the source")


def third_party_cited(evidence: Evidence, _contest: Contest) -> CheckResult:
    expected = f"each in {third_party.NAME}"
    if third_party.NAME not in evidence.source:
        return fail(f"there is no {third_party.NAME}", expected)
    try:
        cited = third_party.parse(evidence.source[third_party.NAME])
    except ValueError as error:
        return fail(f"{third_party.NAME} cannot be read: {' '.join(str(error).split())[:200]}", expected)
    missing = [str(each) for each in third_party.uncited(evidence.source, cited, evidence.imports)]
    evidence.imports.keep()
    return decide(not missing, _some(missing) or f"{len(cited.packages)} packages, {len(cited.ideas)} ideas", expected)


def team(evidence: Evidence, contest: Contest) -> CheckResult:
    expected = f"1 to {contest.largest_team} members in team.yaml"
    if evidence.team is None:
        return fail("there is no team.yaml, only the example", expected)
    members = len(evidence.team.members)
    if not 1 <= members <= contest.largest_team:
        return fail(f"{evidence.team.name}: {members} members", expected)
    if evidence.team.trouble is not None:
        return fail(evidence.team.trouble, expected)
    if strange := [name for name in (evidence.team.name, *evidence.team.members) if not _can_be_read(name)]:
        return fail(f"letters that cannot be seen, or piled up: {strange[0]!a}", expected)
    if alike := look_alike.groups(evidence.team.members):  # two people may be namesakes
        shown = "; ".join(", ".join(map(ascii, group)) for group in alike)
        return CheckResult("", HUMAN, expected, f"members whose names look the same: {shown}")
    return decide(True, f"{evidence.team.name}: {members}", expected)


def _can_be_read(name: str) -> bool:
    """No letters that are not seen or turn the others round, and no more accents on one than a language puts there."""
    piled = 0
    for each in unicodedata.normalize("NFC", name):
        piled = piled + 1 if unicodedata.combining(each) else 0
        if unicodedata.category(each) in {"Cc", "Cf", "Co", "Cn", "Zl", "Zp"} or piled > MOST_ACCENTS:
            return False
    return True


def _calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names of the functions that are called, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield name, node.lineno


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + f" and {len(names) - SHOWN} more" * (len(names) > SHOWN)
