"""transformers for its tokenizers alone, in a process that loads no model.

With torch at hand, importing AutoTokenizer imports the code of models and of their distribution over devices, two
thirds of the time that a verification takes. Without torch it does not, and gives the same tokenizer.
"""

from __future__ import annotations

import os
import sys

NO_ADVICE = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
"""Keeps transformers from saying that there is no torch."""


def import_without_torch() -> None:
    """Import transformers so that it sees no torch; torch itself can be imported afterwards.

    Does nothing where one of them is imported already. Afterwards transformers loads no model in this process.
    """
    if "torch" in sys.modules or "transformers" in sys.modules:
        return
    advice = os.environ.get(NO_ADVICE)
    os.environ[NO_ADVICE] = "1"
    sys.modules["torch"] = None  # type: ignore[assignment]  # Python's own way to say that there is no such module
    try:
        from transformers import AutoTokenizer  # noqa: F401, PLC0415
    finally:
        del sys.modules["torch"]
        if advice is None:
            del os.environ[NO_ADVICE]
        else:
            os.environ[NO_ADVICE] = advice
