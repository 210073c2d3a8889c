"""Looking at given answers: the margins are those of transformers' logits, however passes and answers lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from engine.test_streaming import too_little

from pipeline import text_generation
from pipeline.engine import teacher_forcing
from pipeline.engine.teacher_forcing import Given
from pipeline.errors import ResourceError

pytestmark = pytest.mark.usefixtures("one_thread")

SHARED = [5, 9, 2, 7, 11, 3]
PAIRS = [
    ([*SHARED, 21], [4, 8, 15]),
    ([*SHARED, 21], [4, 8, 16, 23, 42]),
    ([*SHARED, 21], [4, 8, 15]),  # the same again
    (SHARED, [21, 4]),  # one prompt begins another
    ([*SHARED, 22, 30, 31], [7]),
    ([99], [1, 2]),
]


def given(probes: int = 1) -> list[Given]:
    return [Given(prompt, answer, np.repeat(np.array(answer)[:, None], probes, axis=1)) for prompt, answer in PAIRS]


@pytest.fixture(scope="module")
def theirs(tiny: Path) -> list[torch.Tensor]:
    """transformers' logits (n, V) in the answers' places."""
    from transformers import Phi3ForCausalLM

    model = Phi3ForCausalLM.from_pretrained(str(tiny), torch_dtype=torch.float32).eval()
    with torch.inference_mode():
        return [model(torch.tensor([[*p, *a]])).logits[0, len(p) - 1 : -1] for p, a in PAIRS]


@pytest.mark.parametrize("rows", [None, 1, 3, 64])
def test_margins_are_those_of_transformers_logits(tiny: Path, theirs: list[torch.Tensor], rows: int | None) -> None:
    engine = text_generation.load(tiny, dtype="float32", device="cpu").engine
    looks = teacher_forcing.look(engine, given(), rows)
    assert engine.pool.free == engine.pool.slots
    for (_, answer), found, logits in zip(PAIRS, looks, theirs, strict=True):
        best = logits.topk(2)
        chosen = logits.gather(1, torch.tensor(answer)[:, None])
        np.testing.assert_allclose(found.behind, (best.values[:, :1] - chosen).numpy(), atol=1e-4)
        np.testing.assert_allclose(found.lead, (best.values[:, 0] - best.values[:, 1]).numpy(), atol=1e-4)
        assert (found.top == best.indices.numpy()).all()


def test_weights_from_the_disk_give_the_same(deep: Path) -> None:
    resident = text_generation.load(deep, dtype="float32", device="cpu").engine
    streamed = text_generation.load(deep, dtype="float32", device="cpu", memory_bytes=too_little(deep)).engine
    assert streamed.weights.streamed
    for a, b in zip(teacher_forcing.look(resident, given()), teacher_forcing.look(streamed, given()), strict=True):
        np.testing.assert_allclose(a.behind, b.behind, atol=1e-4)


def test_a_token_of_no_vocabulary_is_infinitely_far_behind(tiny: Path) -> None:
    engine = text_generation.load(tiny, dtype="float32", device="cpu").engine
    (found,) = teacher_forcing.look(engine, [Given([5, 9], [4], np.array([[10**9, 2**62, -1, 4]]))])
    assert np.isinf(found.behind[0]).tolist() == [True, True, True, False]


def test_answers_beyond_the_pool_make_it_grow_or_are_refused(tiny: Path) -> None:
    engine = text_generation.load(tiny, dtype="float32", device="cpu").engine
    long = [1] * (engine.limits.slots + 1)
    (found,) = teacher_forcing.look(engine, [Given(long, [4], np.array([[4]]))])
    assert found.behind.shape == (1, 1)
    with pytest.raises(ResourceError, match="fit"):
        engine.fit_pool([range(10**9)], max_new_tokens=0)
    assert teacher_forcing.look(engine, []) == []
