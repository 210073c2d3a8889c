"""Source that submissions share, and where.

In: source trees or archives. Out: pairs with passages side by side.
"""
