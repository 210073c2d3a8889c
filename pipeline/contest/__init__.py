"""The contest's half: what a team hands in, and what an organiser makes of it.

In: runs of the product, archives of strangers. Out: packed submissions, verdicts, a ranking.
Only `commands/` imports it.
"""
