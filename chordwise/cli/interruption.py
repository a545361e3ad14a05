"""Ctrl-C: it is deferred while documents are taken in, and noted while a command waits."""

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

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until it is pressed; return whether it was."""
        return self._pressed.wait(seconds)

    def note(self) -> None:
        """Remember that it was pressed, and interrupt.

        Raises:
            KeyboardInterrupt: Always.
        """
        self._pressed.set()
        raise KeyboardInterrupt

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
    """Let Ctrl-C ask instead of interrupting, the second time insist; `on_press` tells the user."""
    interruption = Interruption()

    def press() -> None:
        interruption.press()
        on_press()

    with _handling(press):
        yield interruption


@contextmanager
def noted() -> Iterator[Interruption]:
    """Let Ctrl-C interrupt, and remember it.

    Python drops an exception that is raised while it frees an object, so that a loop has to ask.
    """
    interruption = Interruption()
    with _handling(interruption.note):
        yield interruption


@contextmanager
def _handling(pressed: Callable[[], None]) -> Iterator[None]:
    def handle(_number: int, _frame: object) -> None:
        pressed()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
