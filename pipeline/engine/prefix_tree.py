"""Every shared prefix of a set of prompts becomes one node, so that it is computed once.

A compressed trie of token ids: each node holds the run of tokens between two branchings. Nodes come
in depth-first order, parents before children, so that walking them in order keeps the contexts that
are in use together. Prompts that are equal, or one the prefix of another, are ordinary cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.engine.arrays import Ints, common_prefix, ints


@dataclass(frozen=True, slots=True)
class Node:
    parent: int
    """Index of the parent, -1 at the top."""
    start: int
    """Position of the first token, that is the length of everything above."""
    tokens: Ints
    prompts: tuple[int, ...]
    """The prompts that end with this node's last token."""


@dataclass(frozen=True, slots=True)
class PrefixTree:
    nodes: tuple[Node, ...]
    paths: tuple[tuple[int, ...], ...]
    """For each prompt, in the caller's order: its nodes from the top."""
    order: tuple[int, ...]
    """The prompts in depth-first order."""

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return sum(len(node.tokens) for node in self.nodes)


def build(prompts: Sequence[Sequence[int]]) -> PrefixTree:
    """The tree of `prompts`, each at least one token long. Time: sorting, then each token is looked at once."""
    arrays = [ints(prompt) for prompt in prompts]
    # Big-endian bytes sort as the tokens do, and are compared by memcmp: long shared prefixes cost little.
    order = sorted(range(len(prompts)), key=lambda index: arrays[index].astype(">u4").tobytes())
    nodes: list[Node] = []
    paths: list[tuple[int, ...]] = [()] * len(prompts)

    # Ranges of the sorted prompts that agree in their first `depth` tokens and differ from the next on.
    ranges = [(0, len(order), 0, -1)]
    while ranges:
        low, high, depth, parent = ranges.pop()
        if low == high:
            continue
        token = prompts[order[low]][depth]
        end = low + 1
        while end < high and prompts[order[end]][depth] == token:
            end += 1
        first, last = arrays[order[low]], arrays[order[end - 1]]
        # Sorted: what the first and the last of a range share, all between them share.
        stop = len(first) if end - low == 1 else depth + common_prefix(first[depth:], last[depth:])
        inner = low
        while inner < end and len(arrays[order[inner]]) == stop:
            inner += 1
        here = tuple(order[low:inner])
        nodes.append(Node(parent, depth, first[depth:stop], here))
        above = paths_to(nodes, len(nodes) - 1) if here else ()
        for prompt in here:
            paths[prompt] = above
        ranges.append((end, high, depth, parent))
        ranges.append((inner, end, stop, len(nodes) - 1))
    return PrefixTree(tuple(nodes), tuple(paths), tuple(order))


def paths_to(nodes: Sequence[Node], index: int) -> tuple[int, ...]:
    """The nodes from the top to `index`."""
    path = []
    while index >= 0:
        path.append(index)
        index = nodes[index].parent
    return tuple(reversed(path))


def tokens_of(tree: PrefixTree, prompt: int) -> Ints:
    """A prompt's tokens, put together from its nodes."""
    return np.concatenate([tree.nodes[node].tokens for node in tree.paths[prompt]])
