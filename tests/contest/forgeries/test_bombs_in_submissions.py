"""Whole submissions that are small in the archive and large when read: judged, INVALID or not, in seconds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.audited import Ground, verified
from support.drafts_of_submissions import Draft, put_source, source_of

from pipeline.contest.verify.verify import VALID

pytestmark = [pytest.mark.checkout, pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

SECONDS = 20
"""Of processor time: a busy machine changes nothing."""

Bomb = Callable[[Draft], None]


def rows_of_500_000_tokens(d: Draft) -> None:
    for row in d.rows:
        row["token_ids"] = [1001] * 500_000
    d.settle()


def texts_of_two_million_blanks(d: Draft) -> None:
    for row in d.rows:
        row["output"] = [{"generated_text": " " * 2_000_000}]
    d.settle()


def texts_of_a_million_numbers(d: Draft) -> None:
    for row in d.rows:
        row["output"] = [{"generated_text": "1," * 1_000_000}]
    d.settle()


def telemetry_of_half_a_million_lines(d: Draft) -> None:
    d.telemetry = [d.telemetry[0]] + [["1.0"] * len(d.telemetry[0])] * 500_000


def a_million_interfaces(d: Draft) -> None:
    d.manifest["network"]["interfaces"] = ["e"] * 1_000_000


def declarations_without_end(d: Draft) -> None:
    d.submission["declarations"] |= {str(number): True for number in range(300_000)}


def files_by_the_thousand(d: Draft) -> None:
    d.files |= {f"run/x/{number}": b"1" for number in range(1900)}


def a_log_of_one_line_again_and_again(d: Draft) -> None:
    d.files["run/run.log"] = b"INFO 1 prompts in 1.0 s, 1 tokens\n" * 100_000


def modules_by_the_thousand(d: Draft) -> None:
    put_source(d, source_of(d) | {f"d/f{number}.py": (0o644, b"import os\n") for number in range(4900)})


BOMBS: dict[Bomb, bool] = {
    rows_of_500_000_tokens: False,
    texts_of_two_million_blanks: False,
    texts_of_a_million_numbers: False,
    telemetry_of_half_a_million_lines: False,
    a_million_interfaces: False,
    declarations_without_end: True,
    files_by_the_thousand: True,
    a_log_of_one_line_again_and_again: False,
    modules_by_the_thousand: False,
}
"""By bomb: whether all that is asked is in order, so that nothing has to fail."""


def processor_s() -> float:
    """Of this process and of those that it waited for."""
    return sum(os.times()[:4])


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_it_is_judged_in_seconds(bomb: Bomb, ground: Ground, tmp_path: Path) -> None:
    draft = Draft.of(ground.light)
    bomb(draft)
    tar = draft.pack(tmp_path)
    start_s = processor_s()
    verdict = verified(tar, ground)
    taken_s = processor_s() - start_s
    assert taken_s < SECONDS
    assert BOMBS[bomb] or verdict.state != VALID
