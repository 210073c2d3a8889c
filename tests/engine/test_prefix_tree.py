"""Whatever the prompts share is stored once, and every prompt can be read back."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.prefix_tree import PrefixTree, build, paths_to, tokens_of

# Few different tokens, so that prompts share prefixes, repeat, and are prefixes of one another.
PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=14)


def prefixes(prompts: list[list[int]]) -> set[tuple[int, ...]]:
    return {tuple(prompt[:end]) for prompt in prompts for end in range(1, len(prompt) + 1)}


def children(tree: PrefixTree, parent: int) -> list[int]:
    return [index for index, node in enumerate(tree.nodes) if node.parent == parent]


@given(PROMPTS)
def test_every_prompt_can_be_read_back(prompts: list[list[int]]) -> None:
    tree = build(prompts)
    assert [tokens_of(tree, index).tolist() for index in range(len(prompts))] == prompts


@given(PROMPTS)
def test_every_prefix_is_stored_once(prompts: list[list[int]]) -> None:
    tree = build(prompts)
    assert tree.tokens == len(prefixes(prompts))
    for parent in range(-1, len(tree.nodes)):
        first = [int(tree.nodes[child].tokens[0]) for child in children(tree, parent)]
        assert len(first) == len(set(first))


@given(PROMPTS)
def test_no_node_could_be_one_with_its_only_child(prompts: list[list[int]]) -> None:
    tree = build(prompts)
    for index, node in enumerate(tree.nodes):
        assert len(node.tokens) > 0
        assert node.prompts or len(children(tree, index)) > 1


@given(PROMPTS)
def test_each_prompt_ends_at_one_node_which_is_the_last_of_its_path(prompts: list[list[int]]) -> None:
    tree = build(prompts)
    ends = {prompt: index for index, node in enumerate(tree.nodes) for prompt in node.prompts}
    assert sorted(prompt for node in tree.nodes for prompt in node.prompts) == list(range(len(prompts)))
    for prompt, path in enumerate(tree.paths):
        assert path[-1] == ends[prompt]
        assert path == paths_to(tree.nodes, path[-1])


@given(PROMPTS)
def test_nodes_start_where_their_parents_end(prompts: list[list[int]]) -> None:
    tree = build(prompts)
    for node in tree.nodes:
        above = tree.nodes[node.parent] if node.parent >= 0 else None
        assert node.start == (above.start + len(above.tokens) if above else 0)


@given(PROMPTS)
def test_nodes_and_prompts_come_depth_first(prompts: list[list[int]]) -> None:
    tree = build(prompts)
    for index, node in enumerate(tree.nodes):
        assert node.parent in (-1, *paths_to(tree.nodes, index - 1)) if index else node.parent == -1
    assert list(tree.order) == [prompt for node in tree.nodes for prompt in node.prompts]


@given(PROMPTS, st.randoms(use_true_random=False))
def test_the_order_of_the_prompts_does_not_change_the_nodes(prompts: list[list[int]], rng: random.Random) -> None:
    shuffled = rng.sample(prompts, len(prompts))
    runs = [[(node.parent, node.start, node.tokens.tolist()) for node in build(p).nodes] for p in (prompts, shuffled)]
    assert runs[0] == runs[1]


def test_equal_prompts_share_all_nodes() -> None:
    tree = build([[5, 6], [5, 6], [5, 6]])
    assert (len(tree.nodes), tree.tokens, tree.nodes[0].prompts) == (1, 2, (0, 1, 2))


def test_a_prompt_that_is_the_start_of_another_ends_inside_its_path() -> None:
    tree = build([[1, 2, 3], [1, 2]])
    assert tree.paths == ((0, 1), (0,))
    assert [node.prompts for node in tree.nodes] == [(1,), (0,)]


def test_prompts_with_nothing_in_common_have_a_top_each() -> None:
    tree = build([[2], [1]])
    assert [node.parent for node in tree.nodes] == [-1, -1]


def test_no_prompts_make_an_empty_tree() -> None:
    tree = build([])
    assert (tree.nodes, tree.paths, tree.tokens) == ((), (), 0)


def test_very_long_prompts_nest_deeply_without_recursion() -> None:
    prompts = [[1] * length for length in range(1, 1500)]
    tree = build(prompts)
    assert (len(tree.nodes), tree.tokens) == (1499, 1499)
    assert tokens_of(tree, 1498).tolist() == prompts[-1]
