"""Answers a file of chat prompts with a Phi-3 checkpoint: exactly, within memory, in the least time.

Two halves: the product (everything but `contest/`) and the contest. Nothing but `commands/` imports `contest/`.
docs/architecture.md is the map.
"""
