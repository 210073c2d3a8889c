"""The organiser's side: a submission's verdict, everything in it computed anew.

In: an unpacked submission, the organiser's own data, model and reference. Out: checks, a verdict, its page.
"""
