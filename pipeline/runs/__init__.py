"""The work that a user starts on a model: the timed run, its resumption, evaluation of many sets, reproduction, plan.

In: a request (model, data, engine, limits). Out: a run's folder, in `record/`'s form, and its summary.
Stands on the rest of the product; `contest/` reads what it wrote, `commands/` calls it.
"""
