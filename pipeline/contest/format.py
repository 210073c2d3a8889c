"""Names and schema of a submission's archive, for those who write one and those who read one.

    <team>-<hash>/
        MANIFEST.sha256      a line "<sha256>  <path>" for every other file, sorted
        submission.json      who, which run, which commit, what was redacted
        run/                 the run's folder, redacted
        source.tar           git archive of the commit that made the run
        method.pdf, …        the documents that `submit` makes of the run
        image.tar            only when it was asked for

The hash: the first digits of the sha256 of MANIFEST.sha256, and so of everything.
"""

from __future__ import annotations

from typing import Final

SCHEMA: Final = 1
MANIFEST: Final = "MANIFEST.sha256"
SUBMISSION: Final = "submission.json"
RUN: Final = "run"
SOURCE: Final = "source.tar"
IMAGE: Final = "image.tar"
HASH_DIGITS: Final = 12
