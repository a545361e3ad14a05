"""Gives each part of a file a place of its own, even where several bear the same name."""

from __future__ import annotations


class Naming:
    """The places that were given out in one file."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def place(self, name: str) -> str:
        """Return the name, with a number behind it from the second time on."""
        count = self._taken[name] = self._taken.get(name, 0) + 1
        return name if count == 1 else f"{name} ({count})"
