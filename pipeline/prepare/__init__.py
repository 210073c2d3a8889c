"""Before a run: set-up of model, data and board, the doctor's checks, the container.

In: names from `configs/` and what the machine says of itself. Out: a ready checkout, or findings with remedies.
Called by `commands/` and `runs/`.
"""
