"""Answers a file of chat prompts with a Phi-3 checkpoint: exactly, within memory, in the least time."""
