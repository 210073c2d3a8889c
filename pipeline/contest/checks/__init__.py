"""The checks of a run, by id: each looks at one thing, on the organiser's copies of data, model and reference.

In: a run's files, a stranger's or one's own. Out: a `CheckResult` each. `rules/` and `verify/` import it.
"""
