"""Pages of one file: templates, their style, and the one function that fills them in.

In: a template's name and its values. Out: HTML that needs nothing else. Every value is escaped.
Imports of ours only `errors` and `files`; `report/` and `contest/` call it.
"""
