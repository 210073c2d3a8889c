"""Greedy answers to many prompts in the least time: token ids in, token ids out.

In: a list of token lists, weights, a device. Out: a list of token lists, and what the passes were.
Knows nothing of text, files, YAML or the contest; imports of ours only `errors`.
"""
