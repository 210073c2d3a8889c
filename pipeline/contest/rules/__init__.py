"""The contest's rules (`configs/rules.yaml`) and the checks that decide them.

In: evidence: a source tree, a run, a team. Out: one result a rule.
"""
