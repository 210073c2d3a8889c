"""Packing a run to hand it in: redaction, documents, pictures, the archive.

In: a finished run. Out: dist/<team>-<hash>.tar.
"""
