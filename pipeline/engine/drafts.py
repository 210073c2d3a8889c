"""Guesses at an answer's next tokens that cost little; the model checks them, so they change nothing but time.

Two sources, best first:
* the candidates that came with the prompt (the choices it lists, tokenised as answers, the end token
  behind each): what all candidates that agree with the answer so far go on with;
* prompt lookup: what followed the last place where the newest tokens stood before (LLMA, arXiv
  2304.04487; the form with the prompt as reference is apoorvumang/prompt-lookup-decoding).

How often each source was right so far says how far its next guess is worth checking. A source that fails costs its
draft and, the first time, a line in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from loguru import logger

from pipeline.engine.arrays import Ints, ints
from pipeline.engine.cost import PassCost

SOURCES = ("choices", "lookup")

LOOKUP_LENGTHS = (4, 3, 2)
"""So many of the newest tokens must have stood together before; longer matches are tried first."""

LONGEST = {"choices": 64, "lookup": 16}
"""Tokens in one guess at most."""


@dataclass(frozen=True, slots=True)
class Draft:
    tokens: tuple[int, ...] = ()
    source: str = SOURCES[0]


NONE = Draft()


class Guesses:
    """The guesses for the prompts of one call. A source that fails costs its draft and, the first time, a line in the
    log: what only saves time ends no run."""

    def __init__(self, candidates: Sequence[Sequence[Sequence[int]]]) -> None:
        self._candidates = candidates
        self._failed = False

    def following(self, index: int, prompt: Callable[[], Ints], answer: Sequence[int], longest: int) -> Draft:
        """Drafts for the next tokens of prompt `index`; see `guess` below."""
        for candidates in (self._of(index), ()):
            try:
                return guess(prompt, answer, candidates, longest)
            except Exception as error:
                self._note(error)
        return NONE

    def whole(self, index: int, stop_tokens: frozenset[int], longest: int) -> list[Draft]:
        """Every candidate for the whole answer of prompt `index`; see `whole` below."""
        try:
            return whole(self._of(index), stop_tokens, longest)
        except Exception as error:
            self._note(error)
            return []

    def _of(self, index: int) -> Sequence[Sequence[int]]:
        try:
            return self._candidates[index]
        except Exception as error:  # whatever somebody's sequence does
            self._note(error)
            return ()

    def _note(self, error: Exception) -> None:
        if not self._failed:
            logger.warning("a draft could not be made, the answers are the same: {}: {}", type(error).__name__, error)
        self._failed = True


def guess(
    prompt: Callable[[], Ints], answer: Sequence[int], candidates: Sequence[Sequence[int]], longest: int
) -> Draft:
    """At most `longest` tokens that may follow `answer`, which has one at least. `prompt` is asked only if need be."""
    if longest <= 0:
        return NONE
    chosen = from_choices(answer, candidates)
    if chosen:
        return Draft(chosen[: min(longest, LONGEST["choices"])], "choices")
    found = from_lookup(np.concatenate([prompt(), ints(answer)]), min(longest, LONGEST["lookup"]))
    return Draft(found, "lookup")


def from_choices(answer: Sequence[int], candidates: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The tokens with which every candidate that starts with `answer` goes on."""
    known, start = len(answer), list(answer)
    open_ones = [tuple(c[known:]) for c in candidates if len(c) > known and list(c[:known]) == start]
    if not open_ones:
        return ()
    if len(open_ones) == 1:
        return open_ones[0]
    low, high = min(open_ones), max(open_ones)  # sorted: what these two share, all share
    shared = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:shared]


def from_lookup(sequence: Ints, longest: int) -> tuple[int, ...]:
    """The tokens that followed the last earlier occurrence of the newest tokens of `sequence`."""
    for length in LOOKUP_LENGTHS:
        if len(sequence) <= length:
            continue
        earlier = np.lib.stride_tricks.sliding_window_view(sequence[:-1], length)
        places = np.flatnonzero((earlier == sequence[-length:]).all(-1))
        if len(places):
            follow = int(places[-1]) + length
            return tuple(sequence[follow : follow + longest].tolist())
    return ()


def whole(candidates: Sequence[Sequence[int]], stop_tokens: frozenset[int], longest: int) -> list[Draft]:
    """Each candidate for an answer that has no token yet, up to what ends it; each once."""
    cut = (until(Draft(tuple(candidate[: longest - 1]), "choices"), stop_tokens) for candidate in candidates)
    return list(dict.fromkeys(draft for draft in cut if draft.tokens))


def right(draft: Draft, out: Sequence[int]) -> int:
    """How many tokens of a draft are what the model says, `out[i]` being what it says before the draft's token i."""
    for at, token in enumerate(draft.tokens):
        if token != out[at]:
            return at
    return len(draft.tokens)


def until(draft: Draft, stop_tokens: frozenset[int]) -> Draft:
    """The draft without a stop token and what is behind it: the row before says already whether the answer ends."""
    if stop_tokens.isdisjoint(draft.tokens):
        return draft
    end = next(at for at, token in enumerate(draft.tokens) if token in stop_tokens)
    return Draft(draft.tokens[:end], draft.source)


EXPECTED = {"choices": (9.0, 10.0), "lookup": (2.0, 4.0)}
"""(right, looked at) tokens that each source is credited with before any is looked at."""


class Acceptance:
    """How often a guessed token that was looked at was right, by source."""

    def __init__(self) -> None:
        self.proposed = dict.fromkeys(SOURCES, 0)
        self.accepted = dict.fromkeys(SOURCES, 0)
        self._looked_at = dict.fromkeys(SOURCES, 0)

    def rate(self, source: str) -> float:
        right, of = EXPECTED[source]
        return (self.accepted[source] + right) / (self._looked_at[source] + of)

    def record(self, draft: Draft, accepted: int) -> None:
        self.proposed[draft.source] += len(draft.tokens)
        self.accepted[draft.source] += accepted
        # The first wrong token was looked at, those behind it were not.
        self._looked_at[draft.source] += min(accepted + 1, len(draft.tokens))


DraftPolicy = Callable[[Draft, float, int, float, PassCost], Draft]
"""How much of a draft to check: `worth`, or another for comparisons."""


def worth(draft: Draft, rate: float, rows: int, saved_s: float, cost: PassCost) -> Draft:
    """The start of a draft that pays in a pass that has `rows` rows already.

    A token at depth d is right with probability rate^d and then saves a row of a later pass, which takes
    `saved_s`. Checking it costs one more row now, which is free where the pass takes the time of reading the weights.
    """
    keep, chance = 0, rate
    while keep < len(draft.tokens) and chance * saved_s > cost.one_more(rows + keep):
        keep += 1
        chance *= rate
    return Draft(draft.tokens[:keep], draft.source) if keep else NONE
