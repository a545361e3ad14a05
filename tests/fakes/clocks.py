"""Clocks that stand still until a test moves them."""

from __future__ import annotations


class SleptClock:
    """A clock that only sleeping moves, or the test itself, and that remembers each sleep."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        self.sleeps.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now
