"""Ctrl-C while documents are taken in: the first one stops in order, the second at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interruption:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self._pressed = threading.Event()

    def __call__(self) -> bool:
        """Tell whether to stop."""
        return self._pressed.is_set()

    def press(self) -> None:
        """Ask to stop; the second time, insist.

        Raises:
            KeyboardInterrupt: It was pressed before.
        """
        if self._pressed.is_set():
            raise KeyboardInterrupt
        self._pressed.set()


@contextmanager
def deferred(on_press: Callable[[], None]) -> Iterator[Interruption]:
    """Let Ctrl-C ask instead of interrupting; `on_press` says so to the user."""
    interruption = Interruption()

    def handle(_number: int, _frame: object) -> None:
        interruption.press()
        on_press()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, previous)
