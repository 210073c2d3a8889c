"""All submissions of a folder judged: each run several times, on one board or a farm of them, into verdicts to rank.

In: a folder of tar files, the organiser's data. Out: `<name>.verdict/` beside each, as `verify/` writes them, and
`judge/` with the plan and the files of every run. May be killed at any moment; the same command goes on.
"""
