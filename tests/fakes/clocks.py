"""Clocks that only a test advances."""

from __future__ import annotations

from threading import Event


class SleptClock:
    """A clock that only `sleep`, or the test, advances; it records each sleep."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Advance the clock by `seconds` and return at once."""
        self.sleeps.append(seconds)
        self.now += seconds

    def wait(self, event: Event, seconds: float) -> bool:
        """Return whether the event is set; advance the clock by `seconds` if it is not."""
        if not event.is_set():
            self.sleep(seconds)
        return event.is_set()

    def __call__(self) -> float:
        return self.now
