"""A source tree read: which commit it is, what in it is of others, what it is built from.

In: a checkout or an unpacked source archive. Out: facts for rules, packing and verification.
"""
