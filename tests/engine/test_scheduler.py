"""Every set is finished with the right tokens, whatever the budget, the pool and the drafts.

The model is a fake: what comes next is a function of the whole context. Its K/V says which token at which position a
slot holds, so a context that names a wrong or stale slot is noticed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from pipeline.engine import loop
from pipeline.engine.cost import UNKNOWN, PassCost
from pipeline.engine.pool import Slots
from pipeline.engine.prefix_tree import build
from pipeline.engine.scheduler import Scheduler
from pipeline.engine.shape import Shape
from pipeline.engine.state import Limits, Prefix, Work

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = Shape(
    vocab=4, hidden=2, layers=1, heads=1, kv_heads=1, head_dim=2, intermediate=2, norm_eps=1e-5, rope_theta=1e4,
    max_positions=64, window=None, tied=True,
)  # fmt: skip
STOP = frozenset({0})
COSTS = [UNKNOWN, PassCost((1,), (1.0,)), PassCost((1, 128), (1.0, 1.0)), PassCost((1, 4, 16), (1.0, 1.1, 3.0))]


def next_token(context: tuple[int, ...]) -> int:
    """0 (the stop token) once in a while, else 1 to 4."""
    mixed = zlib.crc32(bytes(context))
    return 0 if mixed % 11 == 0 else 1 + mixed % 4


def greedy(prompt: list[int], max_new_tokens: int) -> list[int]:
    answer: list[int] = []
    while len(answer) < max_new_tokens and not (answer and answer[-1] in STOP):
        answer.append(next_token((*prompt, *answer)))
    return answer


@dataclass(frozen=True)
class Done:
    tokens: list[list[int]]
    passes: int
    prompt_rows: int
    recomputed_rows: int
    accepted: int


def run(
    prompts: list[list[int]],
    max_new_tokens: int,
    limits: Limits,
    cost: PassCost = UNKNOWN,
    candidates: list[list[list[int]]] | None = None,
    overlaps: bool = False,
) -> Done:
    """Work the whole set off, looking at every pass. With `overlaps`, a pass is looked at when the next is made up."""
    tree = build(prompts)
    pool = Slots(limits.slots)
    scheduler = Scheduler(tree, candidates or [[]] * len(prompts), pool, limits, cost, max_new_tokens, STOP)
    stored: dict[int, tuple[int, int]] = {}  # slot: position, token
    passes = prompt_rows = 0
    finished: list[int] = []
    running: list[list[Work]] = []

    def start(works: list[Work]) -> None:
        nonlocal passes, prompt_rows
        rows = sum(len(work.segment) for work in works)
        assert 0 < rows <= limits.budget_rows
        assert len(running) <= int(overlaps)
        passes += 1
        prompt_rows += sum(len(work.segment) for work in works if isinstance(work.owner, Prefix))
        written = [slot for work in works for slot in work.segment.context[work.segment.start :].tolist()]
        assert len(written) == len(set(written)) == rows
        seen_by_running = {slot for other in running for work in other for slot in work.segment.context.tolist()}
        assert not seen_by_running & set(written), "a slot that the running pass uses is written anew"
        running.append(works)

    def tokens(works: list[Work], _: None) -> list[int]:
        """What the device does, in the order in which it was given the passes."""
        assert running.pop(0) is works
        for work in works:
            segment = work.segment
            assert len(segment.context) == segment.start + len(segment)
            for offset, token in enumerate(segment.tokens.tolist()):
                stored[int(segment.context[segment.start + offset])] = (segment.start + offset, token)
        chosen = []
        for work in works:
            segment = work.segment
            for end in range(len(segment.context) - segment.output_rows + 1, len(segment.context) + 1):
                seen = [stored[slot] for slot in segment.context[:end].tolist()]
                assert [position for position, _ in seen] == list(range(end))
                chosen.append(next_token(tuple(token for _, token in seen)))
        return chosen

    idle = 0
    for ended in loop.run(scheduler, start, tokens, overlaps):
        finished += ended
        idle = 0 if ended or passes else idle + 1
        assert idle < 3, "passes that neither computed a row nor began an answer"
        assert len(scheduler.running) <= limits.live
    assert sorted(finished) == list(range(len(prompts)))
    assert pool.free == pool.slots
    tokens = [scheduler.finished[index] for index in range(len(prompts))]
    accepted = sum(scheduler.acceptance.accepted.values())
    return Done(tokens, passes, prompt_rows, scheduler.recomputed_rows, accepted)


@st.composite
def prompt_sets(draw: st.DrawFn) -> list[list[int]]:
    """Prompts that share starts, repeat, and are prefixes of one another."""
    token = st.integers(1, 4)
    starts = draw(st.lists(st.lists(token, max_size=12), min_size=1, max_size=3))
    prompts = draw(
        st.lists(
            st.builds(
                lambda start, cut, tail: [*start[:cut], *tail] or [1],
                st.sampled_from(starts),
                st.integers(0, 12),
                st.lists(token, max_size=5),
            ),
            min_size=1,
            max_size=10,
        )
    )
    return prompts + draw(st.lists(st.sampled_from(prompts), max_size=3))


@st.composite
def draft_sets(draw: st.DrawFn, answers: list[list[int]]) -> list[list[list[int]]]:
    """For each prompt: the right answer, a start of it with something wrong behind, garbage, in any mixture."""
    garbage = st.lists(st.integers(0, 9), max_size=8)
    sets = []
    for answer in answers:
        wrong = st.builds(lambda cut, tail, answer=answer: [*answer[:cut], *tail], st.integers(0, len(answer)), garbage)
        sets.append(draw(st.lists(st.one_of(st.just(answer), wrong, garbage), max_size=3)))
    return sets


@settings(max_examples=200)
@given(st.data())
def test_every_set_is_finished_with_the_right_tokens(data: st.DataObject) -> None:
    prompts = data.draw(prompt_sets())
    max_new_tokens = data.draw(st.integers(1, 14))
    need = max(map(len, prompts)) + max_new_tokens
    overlaps = data.draw(st.booleans())
    limits = Limits(
        budget_rows=data.draw(st.one_of(st.integers(1, 8), st.just(500))),
        slots=data.draw(st.one_of(st.integers(need, need + 40), st.just(5000))),
        live=data.draw(st.one_of(st.integers(1, 4), st.just(100))),
        chunk_rows=None if overlaps else data.draw(st.sampled_from([None, 2])),
    )
    answers = [greedy(prompt, max_new_tokens) for prompt in prompts]
    cost, candidates = data.draw(st.sampled_from(COSTS)), data.draw(draft_sets(answers))
    done = run(prompts, max_new_tokens, limits, cost, candidates, overlaps)
    event(f"recomputed: {done.recomputed_rows > 0}, drafts accepted: {done.accepted > 0}")
    assert done.tokens == answers


@settings(max_examples=60)
@given(prompt_sets(), st.integers(1, 20), st.sampled_from([1, 2, 100]), st.integers(1, 10))
def test_with_ample_memory_each_prefix_is_computed_once(prompts: list, budget: int, live: int, new: int) -> None:
    done = run(prompts, new, Limits(budget, 5000, live), overlaps=live == 2)
    assert done.prompt_rows == build(prompts).tokens
    assert done.recomputed_rows == 0


@pytest.mark.parametrize("right", [0, 1, 2])
def test_whole_answers_are_looked_at_with_their_prompts_where_a_pass_is_dear(right: int) -> None:
    new = 12
    prompts = long_answers(5, new)
    answers = [greedy(prompt, new) for prompt in prompts]
    wrong = [[9] * new, [1 + answers[0][0] % 4, 9]]
    candidates = [[*wrong[:right], answer, *wrong[right:]] for answer in answers]
    dear, cheap = PassCost((1, 1000), (10.0, 10.1)), PassCost((1, 1000), (1.0, 1000.0))
    limits = Limits(500, 5000, 100, chunk_rows=7)
    looked = run(prompts, new, limits, dear, candidates)
    assert looked.tokens == answers
    assert (looked.passes, looked.accepted) == (1, 5 * (new - 1))
    assert run(prompts, new, limits, cheap, candidates).passes > 1  # as many rows more as cost more than they save
    too_many = run(prompts, new, Limits(40, 5000, 100, chunk_rows=7), dear, candidates)
    assert too_many.tokens == answers
    assert too_many.passes > 1


def long_answers(count: int, max_new_tokens: int) -> list[list[int]]:
    """Prompts whose answers use all the tokens that they may."""
    prompts = ([1 + a % 4, 1 + b % 4, 1 + (a * b) % 4, 1 + a // 4 % 4] for a in range(16) for b in range(4))
    different = {tuple(p): p for p in prompts if len(greedy(p, max_new_tokens)) == max_new_tokens}
    found = list(different.values())[:count]
    assert len(found) == count
    return found


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("budget", [1, 5, 64])
@pytest.mark.parametrize("spare", [10, 20, 30])
def test_live_answers_that_outgrow_the_pool_are_computed_again(budget: int, spare: int, overlaps: bool) -> None:
    new = 24
    prompts = long_answers(6, new)
    done = run(prompts, new, Limits(budget, slots=4 + new + spare, live=100), overlaps=overlaps)
    assert done.tokens == [greedy(prompt, new) for prompt in prompts]
    if budget == 64:
        assert done.recomputed_rows > 0


def test_one_slot_too_few_for_all_answers_only_costs_rows() -> None:
    new = 24
    prompts = long_answers(4, new)
    ample = run(prompts, new, Limits(64, slots=5000, live=100))
    tight = run(prompts, new, Limits(64, slots=4 + new, live=100))
    assert tight.tokens == ample.tokens
    assert tight.passes > ample.passes


@pytest.mark.parametrize("budget", [3, 64])
def test_right_drafts_save_passes_and_wrong_ones_change_nothing(budget: int) -> None:
    new = 16
    prompts = long_answers(3, new)
    answers = [greedy(prompt, new) for prompt in prompts]
    free = PassCost((1, 128), (1.0, 1.0))
    limits = Limits(budget, 5000, 100)
    plain = run(prompts, new, limits, UNKNOWN)
    right = run(prompts, new, limits, free, [[answer] for answer in answers])
    wrong = run(prompts, new, limits, free, [[[answer[0], *[9] * 15]] for answer in answers])
    assert plain.tokens == right.tokens == wrong.tokens == answers
    assert right.accepted > 0
    if budget == 64:
        assert right.passes < plain.passes


def test_a_stop_token_inside_a_draft_ends_the_answer_there() -> None:
    prompt = next(p for p in ([a, b, c] for a in range(1, 5) for b in range(1, 5) for c in range(1, 5)) if stops(p))
    answer = greedy(prompt, 30)
    free = PassCost((1, 128), (1.0, 1.0))
    done = run([prompt], 30, Limits(64, 100, 1), free, [[[*answer, 1, 2, 3]]])
    assert done.tokens == [answer]


def stops(prompt: list[int]) -> bool:
    return 3 < len(greedy(prompt, 30)) < 12


def test_a_prompt_longer_than_the_budget_goes_in_pieces() -> None:
    prompt = [1 + i % 4 for i in range(50)]
    done = run([prompt], 1, Limits(7, 100, 1))
    assert (done.passes, done.prompt_rows) == (8, 50)
    assert done.tokens == [greedy(prompt, 1)]
