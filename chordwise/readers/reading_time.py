"""The time that one file may take, over all that it holds; another thread may end it early."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event


class ReadingInterruptedError(Exception):
    """The reading of a file was ended from another thread; it says nothing of the file."""


class ReadingTime:
    """Counts the seconds that parsers are waited for, not those in which texts are stored."""

    def __init__(self, seconds: float, interruption: Event) -> None:
        self.total = seconds
        self._left = seconds
        self._interruption = interruption

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self._left <= 0

    def deadline(self, seconds: float) -> float:
        """Return when, on the monotonic clock, `seconds` or what is left are over."""
        return time.monotonic() + min(seconds, self._left)

    def check(self) -> None:
        """Let the reading go on.

        Raises:
            ReadingInterruptedError: It has to end.
        """
        if self._interruption.is_set():
            raise ReadingInterruptedError

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the time until the end of the block."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._left -= time.monotonic() - begun
