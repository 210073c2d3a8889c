"""Data sets: the catalogue, fetching from pinned sources, conversion, and reading the organiser's form.

In: a name from `configs/datasets/` or a file. Out: rows (chat, answer) in file order, with hashes.
"""
