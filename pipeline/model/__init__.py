"""Checkpoints: fetch, lock, read, load, attest.

In: a name from `configs/models/` or a folder. Out: weights in memory whose bits are those of the lock.
"""
