"""A stranger's bytes: tar files written reproducibly and unpacked within bounds, JSON read strictly.

In: a file that nobody vouches for. Out: files in a folder of their own, or a refusal that names the reason.
"""
