"""`invoke compare --margins`: how near to a tie the model was at the first token in which two answers differ.

A run does not record margins. Under the clock they would cost a second look at all logits of every answered token, and
they are wanted for the few rows that differ. So the model of run A is loaded again, in run A's dtype, and computes the
logits of one position a row: behind the prompt and the tokens that both answers have in common. That is exact: with the
same model and dtype it is what the engine chose from, up to the order of sums, and a margin of about that order is what
makes two sound runs differ. A larger one is a reason to look for a mistake.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from pipeline import paths, text_generation
from pipeline.accuracy.compare import Comparison, Differing, Margin, Run, read, rows_of
from pipeline.errors import IntegrityError
from pipeline.model import fetch, lock
from pipeline.record import run_folder
from pipeline.runs import progress
from pipeline.table import Say


def measure(comparison: Comparison, run_a: str, say: Say = print) -> Comparison:
    """The comparison, with a margin for each row whose tokens differ. `run_a` is the first run that was compared.

    Raises IntegrityError (M142) where the model is not the one that run A had, and what finding and loading it raises.
    """
    a = read(run_folder.find(run_a))
    pipe = _load(a, say)
    rows = rows_of(a)

    def with_margin(each: Differing) -> Differing:
        if each.position is None:
            return each
        common = a.outputs[each.index]["token_ids"][: each.position]
        return replace(each, margin=margin(pipe.logits(rows[each.index].messages, common), each.tokens))

    return replace(comparison, differing=tuple(map(with_margin, comparison.differing)))


def margin(logits: Tensor, tokens: tuple[int | None, int | None]) -> Margin:
    """How near to a tie the logits (V) are from which both runs chose their `tokens`."""
    best, second = logits.topk(2).values.tolist()
    a, b = (None if token is None else best - logits[token].item() for token in tokens)
    return Margin(best - second, (a, b))


def _load(run: Run, say: Say) -> text_generation.TextGenerator:
    """The model that answered, in its dtype, on the best device here: it need not be the run's."""
    name, pinned = run.manifest["model"]["name"], run.manifest["model"]["lock_sha256"]
    folder = fetch.resolve(name, say)
    if (root := lock.current(folder).root) != pinned:
        raise IntegrityError(
            "M142",
            "the model is not the one that run A had",
            where=paths.shown(folder),
            expected=f"the lock {pinned}",
            actual=f"the lock {root}",
            fix="bring that model back, or leave --margins out",
        )
    say(f"loading {name} to look at the rows that differ")
    with progress.loading(folder) as on_bytes:
        return text_generation.load(folder, dtype=run.manifest["dtype"], on_bytes=on_bytes)
