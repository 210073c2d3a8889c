"""The log of passes is one entry a pass and agrees with the counts, whether passes are given ahead or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.engine.cost import PassCost
from pipeline.engine.engine import Engine
from pipeline.engine.pass_log import PassLog
from pipeline.engine.state import Limits
from pipeline.model import config, loader
from pipeline.record import timeline

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [[5, 6, 7, 8, 9, 10 + i, *range(20, 20 + i)] for i in range(9)]
COST = PassCost((1, 128), (1.0, 1.0))


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("limits", [Limits(256, 2048, 64), Limits(8, 200, 3)])
def test_every_pass_is_there_in_order(small: Path, overlaps: bool, limits: Limits) -> None:
    engine = Engine(loader.load(small, torch.float32, torch.device("cpu")), limits, COST)
    engine._overlaps = overlaps  # as on a CUDA device
    answered: list[int] = []
    result = engine.generate(
        PROMPTS,
        max_new_tokens=5,
        stop_tokens=config.stop_tokens(small),
        on_answer=lambda prompt, _: answered.append(prompt),
    )
    log, stats = result.log, result.stats
    assert sorted(answered) == list(range(len(PROMPTS)))
    assert {len(each) for each in (log.end_s, log.handed_on_s, log.prompt_rows, log.answer_rows)} == {stats.passes}
    assert (sum(log.prompt_rows), sum(log.answer_rows)) == (stats.prompt_rows, stats.answer_rows)
    assert 0 < log.planned_s < log.end_s[0]
    assert log.end_s == sorted(log.end_s)
    assert log.handed_on_s[-1] > 0
    assert sum(log.handed_on_s) < log.end_s[-1]


def test_the_log_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    log = PassLog(0.25, prompt_rows=[7, 0], answer_rows=[0, 3], end_s=[0.5, 0.75], handed_on_s=[0.0, 0.125])
    timeline.write_passes(tmp_path, log)
    assert timeline.read_passes(tmp_path) == [timeline.Pass(0.5, 0.0, 7, 0), timeline.Pass(0.75, 0.125, 0, 3)]


def test_no_prompts_have_no_passes(small: Path) -> None:
    engine = Engine(loader.load(small, torch.float32, torch.device("cpu")), Limits(8, 200, 3), COST)
    assert engine.generate([], max_new_tokens=1, stop_tokens=frozenset()).log == PassLog()
