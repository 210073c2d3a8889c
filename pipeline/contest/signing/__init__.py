"""Signatures of the organiser: keys, and statements in envelopes that anybody can check with the public key.

In: bytes of files, a key. Out: an in-toto statement in a DSSE envelope, or what is wrong with one.
"""
