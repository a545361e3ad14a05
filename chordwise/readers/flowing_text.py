"""Writes text piece by piece, with white space collapsed and separators between the blocks."""

from __future__ import annotations

import re

from chordwise.readers import failures

SPACE, LINE, PARAGRAPH, CELL = " ", "\n", "\n\n", "\t"
_STRENGTH = {"": 0, SPACE: 1, LINE: 2, PARAGRAPH: 3}
# Everything that HTML calls white space; a no-break space is a character of its own.
_WHITE = re.compile(r"[ \t\n\r\f]+")


class FlowingText:
    """A text under construction: separators wait until something follows them."""

    def __init__(self, max_characters: int) -> None:
        self._pieces: list[str] = []
        self._pending = ""
        self._fixed = False
        self._limit = max_characters
        self._left = max_characters

    def write(self, text: str) -> None:
        """Append text, every run of white space made one space.

        Raises:
            ReadError: The text is longer than the limit.
        """
        words = _WHITE.sub(" ", text)
        if words.startswith(" "):
            self.separate(SPACE)
        if words.strip(" "):
            self.write_exactly(words.strip(" "))
        if words.endswith(" "):
            self.separate(SPACE)

    def write_exactly(self, text: str) -> None:
        """Append text as it is.

        Raises:
            ReadError: The text is longer than the limit.
        """
        if self._pieces:
            self._pieces.append(self._pending)
        self._pieces.append(text)
        self._left -= len(text) + len(self._pending)
        self._pending, self._fixed = "", False
        if self._left < 0:
            raise failures.too_many_characters(self._limit)

    def separate(self, separator: str) -> None:
        """Ask for a separator before the next text; the strongest one asked for stands."""
        if not self._fixed and _STRENGTH[separator] > _STRENGTH[self._pending]:
            self._pending = separator

    def break_line(self) -> None:
        """End the line; a second break makes an empty line."""
        self.separate(PARAGRAPH if self._pending == LINE else LINE)

    def begin_row(self) -> None:
        """Start a line that no block in its first cell can push further down."""
        self._pending, self._fixed = LINE, True

    def end_cell(self) -> None:
        """Demand a tab before the next cell, whatever blocks close and open until then."""
        row_is_empty = self._fixed and self._pending == LINE
        if not row_is_empty:
            self._pending, self._fixed = CELL, True

    def end_row(self) -> None:
        """Take back the tab after the last cell."""
        self._pending, self._fixed = LINE, False

    def text(self) -> str:
        """Return all that was written."""
        return "".join(self._pieces)
