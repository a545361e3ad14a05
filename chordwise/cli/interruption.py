"""Ctrl-C: it is deferred while documents are taken in, and noted while a command waits."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event


@contextmanager
def deferred(on_press: Callable[[], None]) -> Iterator[Event]:
    """Let Ctrl-C ask instead of interrupting, the second time insist; `on_press` tells the user."""

    def press(pressed: Event) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()
        on_press()

    with _handled(press) as pressed:
        yield pressed


@contextmanager
def noted() -> Iterator[Event]:
    """Let Ctrl-C interrupt, and remember it.

    Python drops an exception that is raised while it frees an object, so that a loop has to ask.
    """

    def press(pressed: Event) -> None:
        pressed.set()
        raise KeyboardInterrupt

    with _handled(press) as pressed:
        yield pressed


@contextmanager
def _handled(press: Callable[[Event], None]) -> Iterator[Event]:
    pressed = Event()
    previous = signal.signal(signal.SIGINT, lambda _number, _frame: press(pressed))
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, previous)
