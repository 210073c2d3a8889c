"""The scheduler's state: limits, nodes of the tree, running answers, the works of a pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.engine import drafts
from pipeline.engine.arrays import EMPTY, Ints
from pipeline.engine.drafts import Draft
from pipeline.engine.prefix_tree import Node
from pipeline.engine.segment import Segment


@dataclass(frozen=True)
class Limits:
    """The limits that memory and the device set; the keys are those of a run's manifest."""

    budget_rows: int
    """Rows of a pass at most."""
    slots: int
    """Slots of the pool."""
    live: int
    """Running answers at most."""
    chunk_rows: int | None = None
    """Rows that go through a layer together, where a pass takes several such chunks from layer to layer since each
    layer comes from a disk. None: all of them."""


@dataclass(slots=True)
class Prefix:
    """The state of one node of the tree."""

    node: Node
    unfinished: int = 0
    """Prompts through this node that have no full answer yet."""
    running: int = 0
    """Those of them whose answers are admitted now."""
    slots: Ints = field(default_factory=lambda: EMPTY)
    """K/V of the first len(slots) tokens."""
    context: Ints = field(default_factory=lambda: EMPTY)
    """Slots of every position up to the end of this node, once all are there."""
    next_token: int | None = None
    """The model's choice after this node's last token, if a prompt ends there."""

    @property
    def missing(self) -> int:
        return len(self.node.tokens) - len(self.slots)


@dataclass(slots=True)
class Answer:
    """A prompt's answer on its way. K/V exists for tokens[:len(slots)]."""

    prompt: int
    tokens: list[int]
    slots: Ints = field(default_factory=lambda: EMPTY)
    in_flight: bool = False
    """Its newest tokens are in a pass whose results are not taken in yet."""
    guesses: list[Guess] = field(default_factory=list)
    """Before its first token is known: whole answers that are looked at in the pass that computes its prompt."""


@dataclass(slots=True)
class Guess:
    """One candidate for a whole answer, checked in the pass that computes the prompt."""

    answer: Answer
    draft: Draft
    slots: Ints
    out: Sequence[int] = ()
    """The model's choice after each of its tokens."""


@dataclass(frozen=True, slots=True)
class Work:
    """A segment and whose it is: a node's, an answer's with the draft that it checks, or a guess at a whole answer."""

    segment: Segment
    owner: Prefix | Answer | Guess
    draft: Draft = drafts.NONE
