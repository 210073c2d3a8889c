"""A run or an evaluation cut into shards, each a job with a load of its own, and merged into the run folders that one
process would have written.

In: what is to be answered, and a queue. Out: run folders in file order, without a time of the contest.
"""
