"""Token for token what a plain greedy loop over the installed transformers' Phi3ForCausalLM gives.

Random tiny models, saved by transformers and read back through our own loader. Where the reference's best two logits
are closer than rounding can move them, there is no right answer: such examples are left out, and counted.
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import Phi3Config, Phi3ForCausalLM

from pipeline.engine import projection
from pipeline.engine.cost import UNKNOWN, PassCost
from pipeline.engine.engine import Engine, Progress, Result
from pipeline.engine.state import Limits
from pipeline.errors import ResourceError
from pipeline.model import loader

pytestmark = pytest.mark.usefixtures("one_thread")

STOP = 1
VOCAB = 40
WINDOW = 5
NEAR = 1e-4
COSTS = [UNKNOWN, PassCost((1,), (1.0,)), PassCost((1, 128), (1.0, 1.0)), PassCost((1, 8, 64), (1.0, 1.1, 3.0))]


@dataclass(frozen=True)
class Kind:
    kv_heads: int
    tied: bool
    window: int | None

    def __str__(self) -> str:
        return f"{self.kv_heads}kv-{'tied' if self.tied else 'untied'}-{self.window or 'no'}window"


KINDS = [Kind(4, False, None), Kind(2, True, None), Kind(1, False, WINDOW), Kind(4, True, WINDOW)]


@functools.cache
def models() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="tiny-phi3-")


@functools.cache
def saved(kind: Kind, dtype: torch.dtype) -> Path:
    torch.manual_seed(sum(map(ord, str(kind))))
    config = Phi3Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kind.kv_heads,
        sliding_window=kind.window,
        tie_word_embeddings=kind.tied,
        max_position_embeddings=128,
        original_max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=STOP,
        pad_token_id=0,
        initializer_range=0.4,
    )
    folder = Path(models().name) / f"{kind}-{dtype}"
    model = Phi3ForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() == 1:  # the norms, which would all be ones
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.to(dtype).save_pretrained(folder)
    return folder


@functools.cache
def reference(kind: Kind, dtype: torch.dtype) -> Phi3ForCausalLM:
    return Phi3ForCausalLM.from_pretrained(saved(kind, dtype), torch_dtype=dtype).eval()


@functools.cache
@torch.inference_mode()
def choice(kind: Kind, dtype: torch.dtype, context: tuple[int, ...]) -> tuple[int, float]:
    """The reference's next token, and how far ahead of the second it is. Without a cache: as plain as can be."""
    logits = reference(kind, dtype)(torch.tensor([context]), use_cache=False).logits[0, -1].float()
    best = logits.topk(2).values
    return int(logits.argmax()), float(best[0] - best[1])


def greedy(
    kind: Kind, dtype: torch.dtype, prompt: list[int], max_new_tokens: int, stop: int | None = STOP
) -> tuple[list[int], list[float]]:
    """The reference's answer, and at each of its tokens the gap between the best two logits."""
    answer: list[int] = []
    gaps: list[float] = []
    while len(answer) < max_new_tokens and stop not in answer[-1:]:
        token, gap = choice(kind, dtype, (*prompt, *answer))
        answer.append(token)
        gaps.append(gap)
    return answer, gaps


def sure_tokens(gaps: list[float], gap: float) -> int:
    """How many tokens come before the first that is not ahead by more than `gap`."""
    return next((index for index, found in enumerate(gaps) if found <= gap), len(gaps))


def engine(kind: Kind, dtype: torch.dtype, limits: Limits, cost: PassCost = UNKNOWN) -> Engine:
    return Engine(
        loader.load(saved(kind, dtype), dtype, "cpu", place=projection.packer(dtype, torch.device("cpu"))), limits, cost
    )


@dataclass(frozen=True)
class Example:
    prompts: list[list[int]]
    max_new_tokens: int
    limits: Limits
    cost: PassCost
    cuts: list[tuple[int, list[int]]]
    """For each prompt's candidate: how much of the right answer, and what behind it."""


@st.composite
def examples(draw: st.DrawFn) -> Example:
    token = st.integers(2, VOCAB - 1)
    starts = draw(st.lists(st.lists(token, max_size=14), min_size=1, max_size=3))
    prompt = st.builds(
        lambda start, cut, tail: [*start[:cut], *tail] or [2],
        st.sampled_from(starts),
        st.integers(0, 14),
        st.lists(token, max_size=6),
    )
    prompts = draw(st.lists(prompt, min_size=1, max_size=6))
    prompts += draw(st.lists(st.sampled_from(prompts), max_size=2))
    new = draw(st.integers(1, 9))
    need = max(map(len, prompts)) + new
    limits = Limits(
        budget_rows=draw(st.sampled_from([1, 2, 3, 7, 33, 500])),
        slots=draw(st.one_of(st.integers(need, need + 25), st.just(2000))),
        live=draw(st.sampled_from([1, 2, 5, 100])),
    )
    cut = st.tuples(st.integers(0, 9), st.lists(st.integers(0, VOCAB - 1), max_size=4))
    cuts = draw(st.lists(cut, min_size=len(prompts), max_size=len(prompts)))
    return Example(prompts, new, limits, draw(st.sampled_from(COSTS)), cuts)


def answered(kind: Kind, dtype: torch.dtype, example: Example, expected: list[list[int]]) -> Result:
    candidates = [[[*e[:cut], *tail], e] for e, (cut, tail) in zip(expected, example.cuts, strict=True)]
    return engine(kind, dtype, example.limits, example.cost).generate(
        example.prompts, max_new_tokens=example.max_new_tokens, stop_tokens=frozenset([STOP]), candidates=candidates
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_float32_gives_the_tokens_of_a_plain_greedy_loop(kind: Kind) -> None:
    tried, kept, accepted = [], [], []

    @settings(max_examples=40)
    @given(examples())
    def check(example: Example) -> None:
        tried.append(1)
        pairs = [greedy(kind, torch.float32, prompt, example.max_new_tokens) for prompt in example.prompts]
        assume(min(min(gaps) for _, gaps in pairs) > NEAR)
        kept.append(1)
        expected = [answer for answer, _ in pairs]
        result = answered(kind, torch.float32, example, expected)
        assert result.tokens == expected
        accepted.append(sum(result.stats.drafts_accepted.values()) > 0)

    check()
    assert len(kept) >= 0.9 * len(tried)
    assert any(accepted)


@pytest.mark.parametrize("kind", KINDS[1:3], ids=str)
def test_bfloat16_gives_the_tokens_of_a_bfloat16_loop_where_it_is_sure(kind: Kind) -> None:
    """Up to the first token that the reference is not ahead with by 0.5; what follows need only run through."""
    sure: list[int] = []

    @settings(max_examples=25)
    @given(examples())
    def check(example: Example) -> None:
        pairs = [greedy(kind, torch.bfloat16, prompt, example.max_new_tokens) for prompt in example.prompts]
        result = answered(kind, torch.bfloat16, example, [answer for answer, _ in pairs])
        for tokens, (expected, gaps) in zip(result.tokens, pairs, strict=True):
            assert 1 <= len(tokens) <= example.max_new_tokens
            sure.append(sure_tokens(gaps, 0.5))
            assert tokens[: sure[-1]] == expected[: sure[-1]]

    check()
    assert sum(sure) >= 50


def test_the_window_matters_here() -> None:
    """Were it ignored, or the prompts shorter than it, the tests above would show nothing."""
    kind = KINDS[2]
    if loader.read_shape(saved(kind, torch.float32)).window is None:
        assert version("transformers").startswith(("4.44.", "4.45."))
        pytest.skip("these versions of transformers ignore the window, and so do we with them")
    prompts = [[2 + (i * step) % 37 for i in range(16)] for step in range(1, 12)]
    seen_by_last = [[2, *prompt[1:]] for prompt in prompts]
    assert [choice(kind, torch.float32, tuple(p)) for p in prompts] != [
        choice(kind, torch.float32, tuple(p[-WINDOW:])) for p in seen_by_last
    ]


PROMPTS = [[2 + (i * step) % 37 for i in range(3 + step)] for step in range(1, 13)]
ROOMY = Limits(64, 1000, 100)


def expected_of(prompts: list[list[int]], new: int) -> list[list[int]]:
    pairs = [greedy(KINDS[1], torch.float32, prompt, new) for prompt in prompts]
    assert min(min(gaps) for _, gaps in pairs) > NEAR
    return [answer for answer, _ in pairs]


@pytest.mark.parametrize("budget", [1, 5, 64])
def test_answers_that_are_computed_again_for_want_of_memory_come_out_the_same(budget: int) -> None:
    prompts, new = [[2 + step, 3 + step] for step in range(8)], 30
    tight = engine(KINDS[1], torch.float32, Limits(budget, 2 + new + 10, 100))
    pairs = [greedy(KINDS[1], torch.float32, prompt, new, stop=None) for prompt in prompts]
    result = tight.generate(prompts, max_new_tokens=new, stop_tokens=frozenset())
    assert budget < 64 or result.stats.recomputed_rows > 0
    sure = [sure_tokens(gaps, NEAR) for _, gaps in pairs]
    assert sum(sure) > 0.9 * new * len(prompts)
    for tokens, (expected, _), known in zip(result.tokens, pairs, sure, strict=True):
        assert tokens[:known] == expected[:known]


def test_an_engine_that_has_measured_the_device_gives_the_same_tokens() -> None:
    warm = engine(KINDS[1], torch.float32, ROOMY)
    warm.warm_up()
    expected = expected_of(PROMPTS, 6)
    for _ in range(2):  # and a second set on the same engine
        result = warm.generate(
            PROMPTS, max_new_tokens=6, stop_tokens=frozenset([STOP]), candidates=[[e] for e in expected]
        )
        assert result.tokens == expected


def test_answers_are_handed_over_once_each_and_counted() -> None:
    handed: dict[int, list[int]] = {}
    progress: list[Progress] = []

    def on_answer(prompt: int, tokens: list[int]) -> None:
        assert prompt not in handed
        handed[prompt] = tokens

    result = engine(KINDS[1], torch.float32, ROOMY).generate(
        PROMPTS, max_new_tokens=6, stop_tokens=frozenset([STOP]), on_answer=on_answer, on_pass=progress.append
    )
    assert [handed[index] for index in range(len(PROMPTS))] == result.tokens == expected_of(PROMPTS, 6)
    stats = result.stats
    assert stats.prompt_tokens == sum(map(len, PROMPTS))
    assert stats.prompt_rows == stats.tree_tokens <= stats.prompt_tokens
    assert stats.answer_tokens == sum(map(len, result.tokens))
    assert (progress[-1].answers, progress[-1].answer_tokens) == (len(PROMPTS), stats.answer_tokens)
    assert [p.answers for p in progress] == sorted(p.answers for p in progress)
    assert all(p.left_s >= 0 for p in progress)


def test_an_engine_is_whole_again_after_an_interruption() -> None:
    one = engine(KINDS[1], torch.float32, ROOMY)

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.generate(PROMPTS, max_new_tokens=6, stop_tokens=frozenset([STOP]), on_pass=interrupt)
    assert one.generate(PROMPTS, max_new_tokens=6, stop_tokens=frozenset([STOP])).tokens == expected_of(PROMPTS, 6)


def test_a_prompt_that_cannot_fit_is_refused_before_any_work() -> None:
    longest = max(range(len(PROMPTS)), key=lambda index: len(PROMPTS[index]))
    need = len(PROMPTS[longest]) + 6
    with pytest.raises(ResourceError) as caught:
        engine(KINDS[1], torch.float32, Limits(64, need - 1, 100)).generate(
            PROMPTS, max_new_tokens=6, stop_tokens=frozenset([STOP])
        )
    assert (caught.value.code, caught.value.where) == ("R301", f"prompt {longest} (counted from 0)")
    exact = engine(KINDS[1], torch.float32, Limits(64, need, 100))
    assert exact.generate(PROMPTS, max_new_tokens=6, stop_tokens=frozenset([STOP])).tokens == expected_of(PROMPTS, 6)


def test_no_prompts_are_no_work() -> None:
    assert engine(KINDS[1], torch.float32, ROOMY).generate([], max_new_tokens=1, stop_tokens=frozenset()).tokens == []


def test_without_stop_tokens_every_answer_has_its_full_length() -> None:
    result = engine(KINDS[1], torch.float32, ROOMY).generate(PROMPTS, max_new_tokens=5, stop_tokens=frozenset())
    assert {len(tokens) for tokens in result.tokens} == {5}
