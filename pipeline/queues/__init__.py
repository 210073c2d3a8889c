"""Many runs on few boards: queues that start jobs, and the files that say what became of each.

In: keyed runs with the command of each. Out: one `result.json` a run, whatever died meanwhile. Files are the truth, a
queue is only a way to make them: what has a result is settled, and all else is derived anew from files and the queue's
list. A queue may run a job twice, forget it, or give its number to another; a run still has one result, by one link(2).
"""
