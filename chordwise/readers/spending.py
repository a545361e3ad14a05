"""Counts the characters of a text under construction against the limit."""

from __future__ import annotations

from chordwise.readers import failures


class Spending:
    """What is left of the limit on one document's characters."""

    def __init__(self, max_characters: int) -> None:
        self._left = self._limit = max_characters

    def __call__(self, characters: int) -> None:
        """Take characters off.

        Raises:
            ReadError: There are none left.
        """
        self._left -= characters
        if self._left < 0:
            raise failures.too_many_characters(self._limit)
