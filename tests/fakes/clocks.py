"""Clocks that only a test advances."""

from __future__ import annotations


class SleptClock:
    """A clock that only `sleep`, or the test, advances; it records each sleep."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Advance the clock by `seconds` and return at once."""
        self.sleeps.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now
