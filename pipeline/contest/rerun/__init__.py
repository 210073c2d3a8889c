"""A stranger's program run under the organiser's own clock.

In: a command that starts it (a container, or a process), the bytes of a data file, caps. Out: when it opened the data
and when it last wrote an answer, the answers as they were copied at that moment, and what it did that it must not.
"""
