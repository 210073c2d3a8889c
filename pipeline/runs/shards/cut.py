"""Where a file is cut: along the prefix tree, into pieces that take about equally long.

The cost of a prompt is counted in rows of passes: its tokens behind what it shares with the prompt before it, and the
tokens of its answer. A full pass takes about as long whatever its rows are, so rows stand for seconds on any device.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from pipeline.engine import prefix_tree
from pipeline.engine.arrays import common_prefix, ints

TOGETHER = 0.5
"""Two prompts belong together that share at least so much of the shorter one, beyond what all prompts share."""


@dataclass(frozen=True)
class Cut:
    pieces: tuple[tuple[int, ...], ...]
    """Prompts of each, ascending."""
    repeated: float
    """Rows that are computed once more because of the cuts, as a share of all."""
    longest: float
    """Cost of the longest piece, as a multiple of an equal part."""


def cut(prompts: Sequence[Sequence[int]], answers: Sequence[int], count: int) -> Cut:
    """Cut prompts, whose answers are expected to have so many tokens, into `count` pieces, none of them empty while
    there are prompts enough."""
    count = min(count, len(prompts))
    if not count:
        return Cut((), 0.0, 1.0)
    order = prefix_tree.build(prompts).order
    arrays = [ints(prompts[each]) for each in order]
    shared = [0, *(common_prefix(a, b) for a, b in pairwise(arrays))]
    costs = [max(1, len(ids) - known) + answers[each]
             for ids, known, each in zip(arrays, shared, order, strict=True)]  # fmt: skip
    ends = [0, *accumulate(costs)]
    edges = _edges([len(ids) for ids in arrays], shared)
    cuts = [0]
    for number in range(1, count):
        cuts.append(_best(ends, shared, edges, cuts[-1] + 1, len(order) - (count - number), number / count))
    cuts.append(len(order))
    pieces = [order[low:high] for low, high in pairwise(cuts)]
    took = [ends[high] - ends[low] + shared[low] for low, high in pairwise(cuts)]
    return Cut(
        tuple(tuple(sorted(each)) for each in pieces),
        repeated=sum(shared[at] for at in cuts[:-1]) / ends[-1],
        longest=max(took) * count / ends[-1],
    )


def _edges(lengths: Sequence[int], shared: Sequence[int]) -> list[bool]:
    """Whether a prompt begins another passage than the one before it, in the tree's order."""
    common = min(shared[1:], default=0)  # by all: a template, an instruction
    found = [True]
    for at in range(1, len(lengths)):
        shorter = min(lengths[at - 1], lengths[at]) - common
        found.append(shared[at] - common < TOGETHER * max(1, shorter))
    return found


def _best(ends: Sequence[int], shared: Sequence[int], edges: Sequence[bool], low: int, high: int, share: float) -> int:
    """The place of a cut from `low` to `high`: where what is repeated and what it is off the even share are least.
    Between two passages, unless that is more than half a piece away."""
    target = share * ends[-1]
    even = target - ends[low - 1]

    def loss(at: int) -> float:
        return shared[at] + abs(ends[at] - target)

    between = [at for at in range(low, high + 1) if edges[at] and abs(ends[at] - target) <= max(0.0, even) / 2]
    if between:
        return min(between, key=loss)
    near = min(max(low, bisect_left(ends, target)), high)
    return min(range(max(low, near - 1), min(high, near + 1) + 1), key=loss)
