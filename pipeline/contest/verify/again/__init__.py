"""The parts of a rerun (`verify/rerun.py`): how a submission's program is started, and what its runs are held against.

In: a submission, the organiser's data and model. Out: a program to start, and checks.
"""
