"""Right or wrong: each set's metric, the scores of a run, and the paired comparison of two runs.

In: answers, keys, a set's rule. Out: verdicts per row, scores, intervals. HumanEval and MBPP run in a sandbox.
"""
