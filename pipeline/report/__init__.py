"""One run as one page: where the time went, what the board did, every wrong answer.

In: a run's folder, and one to hold it against. Out: report.html.
"""
