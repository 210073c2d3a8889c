"""The token audit: honest runs pass in both dtypes, lies about answers do not, what cannot be looked at is said."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.audited import Ground, in_state
from support.drafts_of_submissions import Draft

from pipeline import reference, text_generation
from pipeline.check import FAIL, OK, UNKNOWN
from pipeline.contest.audit import allowance, judging, looking
from pipeline.contest.audit.looking import Seen, Subject
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.verify import audit_checks, verify
from pipeline.dataset import fetch, records
from pipeline.engine.arrays import Floats
from pipeline.text.chat_template import token_ids

pytestmark = pytest.mark.usefixtures("one_thread")

SETS = ("obqa", "arc-easy-validation", "social-iqa-validation")
MOST = 12
CPU = audit_checks.Request("cpu")
Answers = dict[int, list[int]]


def state(seen: Seen) -> dict[str, str]:
    return {each.id: each.state for each in judging.checks(judging.judge(seen))}


HONEST = {judging.TOKENS: OK, judging.SUM: OK}


# The stand-in


class Asked:
    """A few rows of three sets, and what the stand-in says."""

    def __init__(self, standin: Path) -> None:
        self.model = standin
        rows = [row for name in SETS for row in _two(name)]
        self.chats = [row.messages for row in rows]
        self.pipe = text_generation.load(standin, dtype="float32", device="cpu")
        self.prompts = token_ids(self.pipe.tokenizer, self.chats)
        self.own = self.answers(self.pipe)
        end = min(self.pipe.stop_tokens)
        key = [[*self.pipe.tokenizer(row.answer, add_special_tokens=False)["input_ids"], end] for row in rows]
        self.copied = {row: key[row][:MOST] for row in self.own if key[row][:MOST] != self.own[row]}

    def answers(self, pipe: Any, chats: list[Any] | None = None, **more: Any) -> Answers:
        made: Answers = {}
        arguments = {"max_new_tokens": MOST, "return_full_text": False, "do_sample": False, **more}
        pipe(chats or self.chats, **arguments, on_answer=lambda got: made.__setitem__(got.index, list(got.token_ids)))
        return made

    def seen(self, answers: Answers, dtype: str = "float32") -> Seen:
        """`answers`: the number of a row, or that and some hundreds, to look at several answers to it."""
        prompts = {number: self.prompts[number % 100] for number in answers}
        return looking.look(Subject(self.model, dtype, prompts, answers), "cpu")


def _two(name: str) -> list[records.Record]:
    rows = records.read(fetch.ensure(name, lambda _: None))
    return [rows[index] for index in looking.spread(range(len(rows)), 2)]


@pytest.fixture(scope="module")
def asked(standin: Path) -> Asked:
    return Asked(standin)


@pytest.mark.slow
def test_ours_is_honest_and_each_lie_is_found_in_its_rows(asked: Asked) -> None:
    chats = [[{**chat[-1], "content": chat[-1]["content"][:80]}] for chat in asked.chats]
    cut = {row: tokens for row, tokens in asked.answers(asked.pipe, chats).items() if tokens != asked.own[row]}
    flipped = [9999, *asked.own[4][1:]]
    lies = {100 + row: tokens for row, tokens in asked.copied.items()} | {204: flipped}
    lies |= {300 + row: tokens for row, tokens in cut.items()}
    assert asked.copied
    assert cut
    seen = asked.seen(asked.own | lies)
    honest = Seen({row: seen.behind[row] for row in asked.own}, seen.leads, seen.noise)
    assert state(honest) == HONEST
    assert judging.judge(honest).largest < allowance.LEAST_LIMIT
    assert set(judging.judge(seen).beyond) == set(lies)
    assert state(seen)[judging.TOKENS] == FAIL


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "batch"), [("float32", 16), ("bfloat16", 1)])  # more in benchmarks/audit.py
def test_pipes_answers_are_honest(asked: Asked, dtype: str, batch: int) -> None:
    pipe = reference.load(asked.model, dtype=dtype, device="cpu")
    assert state(asked.seen(asked.answers(pipe, batch_size=batch), dtype)) == HONEST


@pytest.mark.slow
def test_our_answers_in_bfloat16_are_honest(asked: Asked) -> None:
    own = asked.answers(text_generation.load(asked.model, dtype="bfloat16", device="cpu"))
    seen = asked.seen(own, "bfloat16")
    assert state(seen) == HONEST
    assert allowance.LEAST_LIMIT < judging.judge(seen).allowed.limit < judging.BLUNT


# The allowance


def noise_of(scale: float, places: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).laplace(0, scale, places).astype(np.float32)


LEADS = np.random.default_rng(1).exponential(3.0, 5_000).astype(np.float32)


def test_the_limit_follows_the_noise_and_not_one_odd_place() -> None:
    noise = noise_of(0.1, 1000)
    quiet = allowance.limit(noise, LEADS)
    assert 1.0 < quiet < 1.6
    assert allowance.limit(np.append(noise, np.float32(50)), LEADS) < 1.1 * quiet
    assert 8 * quiet < allowance.limit(10 * noise, 10 * LEADS) < 12 * quiet
    assert allowance.limit(np.zeros(3, np.float32), LEADS) == allowance.LEAST_LIMIT


def test_the_limit_grows_with_the_number_of_near_ties() -> None:
    noise = noise_of(0.1, 1000)
    limits = [allowance.limit(noise, LEADS[:places]) for places in (50, 500, 5_000)]
    assert limits == sorted(limits)
    assert limits[0] < limits[2]
    assert allowance.limit(noise, np.full(5_000, 8.0, np.float32)) < limits[0]  # nothing can turn these round


@pytest.mark.parametrize("places", [60, 300, 3_000])  # of noise: a few answers, and as many as are looked at
@pytest.mark.parametrize("tokens", [100, 5_000])
def test_honest_programs_raise_no_alarm(places: int, tokens: int) -> None:
    """With noise as it was measured, of their own: at most one of two hundred."""
    chance, alarms = np.random.default_rng(2), 0
    for turn in range(200):
        leads = chance.choice(LEADS, tokens)
        behind = np.where(chance.laplace(0, 0.1, tokens) > leads, leads, 0).astype(np.float32)
        seen = Seen({0: behind}, leads, noise_of(0.1, places, turn))
        alarms += state(seen) != HONEST
    assert alarms <= 1


def test_the_sum_allows_what_the_noise_does_at_near_ties_and_little_more() -> None:
    chance = np.random.default_rng(1)
    noise, leads = noise_of(0.1, 500), chance.choice(LEADS, 20_000)
    allowed = allowance.allowance(noise, leads)
    # An honest program takes the second token where its own noise turns the lead round.
    honest = [leads[leads < chance.laplace(0, 0.1, len(leads))].sum() for _ in range(200)]
    assert 0 < max(honest) < allowed.total < 10 * max(honest)


def test_many_small_margins_are_found_by_their_sum() -> None:
    noise = np.full(500, 0.1, np.float32)
    behind = {row: np.full(10, 0.12, np.float32) for row in range(100)}
    assert state(Seen(behind, LEADS[:1000], noise)) == {judging.TOKENS: OK, judging.SUM: FAIL}


def test_noise_that_hides_everything_is_said() -> None:
    noise = np.full(500, 5.0, np.float32)
    quiet = {0: np.zeros(10, np.float32)}
    assert set(state(Seen(quiet, np.full(10, 5.0, np.float32), noise)).values()) == {UNKNOWN}
    far = {0: np.full(10, 50.0, np.float32)}
    assert state(Seen(far, np.full(10, 5.0, np.float32), noise))[judging.TOKENS] == FAIL


# As part of a verdict


def audited(draft: Draft, folder: Path, organiser: Organiser) -> verify.Verdict:
    verdict = verify.verify(draft.pack(folder), organiser, out=folder / "verdict", audit=CPU)
    assert verdict.trouble == ""
    return verdict


@pytest.mark.checkout
def test_the_good_one_is_valid_and_its_figures_are_kept(ground: Ground, tmp_path: Path) -> None:
    verdict = audited(Draft.of(ground.light), tmp_path, ground.light_organiser)
    assert {judging.TOKENS, judging.SUM} <= in_state(verdict, OK)
    told = json.loads((tmp_path / "verdict/verdict.json").read_text())["audit"]
    assert (told["rows"], told["rows_beyond"], told["device"]) == (6, [], "cpu")
    assert told["tokens"] == sum(len(answer["token_ids"]) for answer in Draft.of(ground.light).rows)


@pytest.mark.checkout
def test_without_the_model_nobody_can_tell(ground: Ground, tmp_path: Path) -> None:
    draft = Draft.of(ground.light)
    verdict = audited(draft, tmp_path, Organiser(ground.data, ground.reference, None, ground.light_organiser.checkout))
    assert in_state(verdict, FAIL) == set()
    assert "audit" in in_state(verdict, UNKNOWN)
    assert verdict.audit is None


@pytest.mark.checkout
@pytest.mark.slow
def test_as_it_is_called(
    ground: Ground, invoke: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    known = ("--data", ground.data, "--model", ground.model, "--reference", ground.reference, "--out", tmp_path / "out")
    done = invoke("verify", ground.light, *known, "--audit", "--device", "cpu")
    assert "audit-tokens" in done.stdout
    assert "audit-sum" in done.stdout
    refused = invoke("verify", ground.light, *known, "--audit", "--device", "tpu")
    assert (refused.returncode, "U204" in refused.stderr) == (2, True)
