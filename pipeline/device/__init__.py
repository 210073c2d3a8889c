"""The board: what it is, its power and clocks, and what a run did to it.

In: sysfs, procfs, nvpmodel, jetson_clocks. Out: values, samples, a verdict on whether a time counts.
Imports of ours only `errors` and `files`.
"""
