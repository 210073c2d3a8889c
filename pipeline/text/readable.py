"""Whatever transformers, tokenizers and Jinja raise of a checkpoint's damaged settings, as one error of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pipeline.errors import IntegrityError


@contextlib.contextmanager
def readable(where: object) -> Iterator[None]:
    """Around reading the tokenizer of the checkpoint `where`. Raises IntegrityError (M311)."""
    try:
        yield
    except IntegrityError:
        raise  # M313: it has no template
    except Exception as error:  # they raise what they like
        raise IntegrityError(
            "M311",
            "the checkpoint's tokenizer or chat template cannot be read",
            where=where,
            expected="config.json, tokenizer.json, tokenizer_config.json and a template as transformers reads them",
            actual=" ".join(f"{type(error).__name__}: {error}".split())[:200],
            fix="fetch the checkpoint's files again, or mend the template",
        ) from error
