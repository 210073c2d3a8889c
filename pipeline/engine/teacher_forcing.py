"""Scores given answers: by how much the model prefers another token to each of theirs. Prefill only.

All of an answer's tokens are known, so prompt and answer are computed as one run of tokens, many runs together, with
shared beginnings computed once. Nothing is chosen and no draft is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.engine import memory, network, prefix_tree
from pipeline.engine.arrays import EMPTY, Floats, Ints
from pipeline.engine.engine import Engine
from pipeline.engine.pass_runner import split
from pipeline.engine.prefix_tree import PrefixTree
from pipeline.engine.segment import Segment, pack

GROUP_ROWS = 8192
"""Tokens that are looked at together, in as many passes as it takes, so that they share what they begin with."""


@dataclass(frozen=True)
class Given:
    """A prompt, the answer that somebody gave, and tokens to look at in each of the answer's n places."""

    prompt: Sequence[int]
    answer: Sequence[int]
    probes: Ints
    """(n, K). A token outside of the vocabulary is infinitely far behind."""


@dataclass(frozen=True)
class Look:
    """An answer's n places, by the model's logits in them."""

    behind: Floats
    """(n, K): logit of the likeliest token less that of each probe; 0 where the probe is as likely."""
    top: Ints
    """(n, 2): the two likeliest tokens."""
    lead: Floats
    """(n): logit of the likeliest token less that of the second."""


def look(engine: Engine, answers: Sequence[Given], rows: int | None = None) -> list[Look]:
    """Look at every answer, each with at least one token and prompt. `rows` of a pass at most; None: the engine's own.

    Raises ResourceError (R301) where memory cannot hold a prompt and its answer.
    """
    if not answers:
        return []
    # All but the answer's last token, behind which nothing is looked at.
    computed = [[*each.prompt, *each.answer[:-1]] for each in answers]
    engine.fit_pool(computed, max_new_tokens=0)
    limits = engine.limits
    rows = min(rows or limits.budget_rows, limits.budget_rows)
    order = sorted(range(len(answers)), key=lambda index: computed[index])
    looks: dict[int, Look] = {}
    for group in _groups(order, computed, min(limits.slots, max(rows, GROUP_ROWS))):
        found = _group(engine, [answers[index] for index in group], [computed[index] for index in group], rows)
        looks |= zip(group, found, strict=True)
    return [looks[index] for index in range(len(answers))]


def _groups(order: Sequence[int], computed: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
    """Neighbours in sorted order, which share beginnings, together up to `most` tokens."""
    group: list[int] = []
    size = 0
    for index in order:
        if group and size + len(computed[index]) > most:
            yield group
            group, size = [], 0
        group.append(index)
        size += len(computed[index])
    if group:
        yield group


def _group(engine: Engine, given: Sequence[Given], computed: Sequence[Sequence[int]], rows: int) -> list[Look]:
    tree = prefix_tree.build(computed)
    slots = engine.pool.take(tree.tokens)
    try:
        return _looked(engine, given, tree, slots, rows)
    finally:
        engine.pool.give_back(slots)


@torch.inference_mode()
def _looked(engine: Engine, given: Sequence[Given], tree: PrefixTree, slots: Ints, rows: int) -> list[Look]:
    weights = engine.weights
    segments, first_output = _segments(tree, [len(each.prompt) - 1 for each in given], slots)
    hidden = []  # (W, H) in all
    # A pass of a few rows is what `rows` asks for; one whose weights come from a disk goes through them in chunks.
    for part in split(segments, rows):
        chunks = [pack(chunk, weights.device) for chunk in split(part, engine.limits.chunk_rows or rows)]
        hidden.append(network.output_rows(weights, engine.pool, chunks, engine.backend))
    places = [_places(tree, first_output, index, len(each.prompt) - 1) for index, each in enumerate(given)]
    return _read(engine, torch.cat(hidden), places, [each.probes for each in given])


def _segments(tree: PrefixTree, needed_from: Sequence[int], slots: Ints) -> tuple[list[Segment], list[int]]:
    """A segment for each node; and for each node the number that its first token would have among all output rows, if
    all its tokens were output rows (only its last ones are, from where a prompt needs them).

    needed_from: for each prompt, the first position whose next token is looked at.
    """
    contexts: list[Ints] = []
    wanted = [len(node.tokens) + node.start for node in tree.nodes]
    for prompt, path in enumerate(tree.paths):  # of node numbers
        for number in path:
            wanted[number] = min(wanted[number], max(needed_from[prompt], tree.nodes[number].start))
    segments, first_output, used, outputs = [], [], 0, 0
    for index, node in enumerate(tree.nodes):
        above = contexts[node.parent] if node.parent >= 0 else EMPTY
        contexts.append(np.concatenate([above, slots[used : used + len(node.tokens)]]))
        used += len(node.tokens)
        count = node.start + len(node.tokens) - wanted[index]
        segments.append(Segment(node.tokens, node.start, contexts[index], count))
        first_output.append(outputs - (len(node.tokens) - count))
        outputs += count
    return segments, first_output


def _places(tree: PrefixTree, first_output: Sequence[int], prompt: int, needed_from: int) -> Ints:
    """The output rows (n) behind which a prompt's answer tokens stand."""
    rows = [np.arange(len(tree.nodes[node].tokens)) + first_output[node] for node in tree.paths[prompt]]
    return np.concatenate(rows)[needed_from:]


def _read(engine: Engine, hidden: Tensor, places: Sequence[Ints], probes: Sequence[Ints]) -> list[Look]:
    """Logits of all rows (W, V), a few rows at a time, and what is looked at in them."""
    device, vocab = hidden.device, engine.weights.shape.vocab
    rows = torch.from_numpy(np.concatenate(places)).to(device)
    wanted = torch.from_numpy(np.concatenate(probes)).to(device)  # (N, K)
    inside = (wanted >= 0) & (wanted < vocab)
    behind, top, lead = [], [], []
    for at in range(0, len(rows), memory.HEAD_ROWS):
        part = slice(at, at + memory.HEAD_ROWS)
        logits = engine.backend.linear(hidden[rows[part]], engine.weights.head).float()
        best = logits.topk(2)
        value = logits.gather(1, wanted[part].clamp(0, vocab - 1))
        behind.append((best.values[:, :1] - value).masked_fill(~inside[part], float("inf")).cpu())
        top.append(best.indices.cpu())
        lead.append((best.values[:, 0] - best.values[:, 1]).cpu())
    ends = np.cumsum([len(each) for each in places])[:-1]
    parts = [np.split(torch.cat(each).numpy(), ends) for each in (behind, top, lead)]
    return [Look(*each) for each in zip(*parts, strict=True)]
