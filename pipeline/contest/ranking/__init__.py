"""Many verdicts in one table.

In: folders that `verify/` wrote. Out: the leaderboard as a page, as JSON, as text.
"""
