"""The bars of a run, drawn on stderr where it is a terminal: bytes of weights while the model is loaded, steps while it
warms up, then answers.

The bar of answers shows tokens and a truthful time left, from its first frame on, which is drawn when the data are
read: it is there before the clock starts, and does not know them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from pipeline.engine.engine import Progress

COUNTS = "{n_fmt} of {total_fmt} answers, {postfix[0]} tokens, {elapsed}, {postfix[1]} left"
FORMAT = "{desc} {percentage:3.0f}% |{bar}| " + COUNTS


@contextmanager
def loading(folder: Path) -> Iterator[Callable[[int], None]]:
    """A bar of the checkpoint's bytes, drawn at once, and the `on_bytes` that moves it; transformers never calls it."""
    from pipeline.model import loader  # noqa: PLC0415 - takes seconds, for torch

    with tqdm(desc="loading", unit="B", unit_scale=True, disable=None, leave=False) as bar:

        def loaded(size_bytes: int) -> None:
            # The total is read with the first bytes: the loader has found the files sound by then, or has said why not.
            if bar.total is None and not bar.disable:
                bar.total = loader.file_bytes(folder)
            bar.update(size_bytes)

        yield loaded


@contextmanager
def warming_up() -> Iterator[Callable[[int, int], None]]:
    """A bar of the warm-up's steps, and the `on_step` that moves it; none with an engine that has no steps."""
    with tqdm(desc="warming up", unit=" steps", disable=None, leave=False, delay=1e-3) as bar:

        def stepped(done: int, steps: int) -> None:
            if not bar.disable:
                bar.total, bar.n = steps, done
                bar.refresh()

        yield stepped


class Bar:
    """Counts finished answers and, with our engine, passes; the time left comes from passes, or the answers' pace."""

    def __init__(self, title: str) -> None:
        self.tokens = 0
        """Tokens of finished answers."""
        self.passes = 0
        """Passes so far; 0 with an engine that reports none."""
        self._estimated = False
        # COUNTS reads the postfix by index, which tqdm allows and its stubs do not know.
        self._bar = tqdm(  # type: ignore[call-overload]
            total=1, desc=title, bar_format=FORMAT, postfix=[0, "?"], disable=None, leave=False, delay=1e-3
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def begin(self, prompts: int) -> None:
        """The data are read: draws the first frame, and counts its time from here."""
        self._bar.reset(total=max(1, prompts))

    def answered(self, tokens: int) -> None:
        """One more answer is complete, so many tokens long."""
        self.tokens += tokens
        if not self._estimated and not self._bar.disable:
            done, total = self._bar.n + 1, self._bar.total
            self._show(self.tokens, self._bar.format_dict["elapsed"] * (total - done) / done)
        self._bar.update()

    def passed(self, progress: Progress) -> None:
        """A pass is over, or the first begins: tokens include those of answers on their way, and the engine knows what
        is left."""
        self._estimated = True
        self.passes = progress.passes
        if not self._bar.disable:
            self._show(progress.answer_tokens, progress.left_s)
            self._bar.refresh()

    def _show(self, tokens: int, left_s: float) -> None:
        self._bar.postfix = [tokens, tqdm.format_interval(left_s)]
