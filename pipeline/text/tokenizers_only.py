"""transformers for its tokenizers alone, in a process that loads no model of transformers.

With torch at hand, importing AutoTokenizer imports the code of models and of their distribution over devices: two
thirds of the time that a verification takes, more than a second of a run's start, and 90 MB. Without torch it does
not, and gives the same tokenizer, and pipe()'s words for what it does with texts.
"""

from __future__ import annotations

import importlib
import os
import sys

NO_ADVICE = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
"""Keeps transformers from saying that there is no torch."""

PIPES_TEXTS = "transformers.pipelines.text_generation"
"""What `detokenize.probe` and `generation_keys` ask."""


def import_without_torch(*more: str) -> None:
    """Import transformers so that it sees no torch, and the modules `more` of it; torch itself can be imported
    afterwards.

    Does nothing where one of them is imported already. Afterwards transformers loads no model in this process. Where a
    release cannot do without torch, none of it stays imported: whoever needs it imports it as ever.
    """
    if "torch" in sys.modules or "transformers" in sys.modules:
        return
    advice = os.environ.get(NO_ADVICE)
    os.environ[NO_ADVICE] = "1"
    sys.modules["torch"] = None  # type: ignore[assignment]  # Python's own way to say that there is no such module
    try:
        from transformers import AutoTokenizer  # noqa: F401, PLC0415

        for name in more:
            importlib.import_module(name)
    except ImportError:
        for name in [name for name in sys.modules if name.split(".")[0] == "transformers"]:
            del sys.modules[name]
    finally:
        del sys.modules["torch"]
        if advice is None:
            del os.environ[NO_ADVICE]
        else:
            os.environ[NO_ADVICE] = advice
