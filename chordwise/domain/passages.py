"""Passages: which texts have words in a row that another text repeats."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

from chordwise.domain.words import UNSPACED

SIZE = 6
"""The number of words of a passage."""
_FEWEST = 3
# Above this number of characters, only each passage that begins at a multiple of SIZE is kept.
_MOST_CHARACTERS = 2_000_000
_TOKEN = re.compile(f"[{UNSPACED}]|[^\\W_{UNSPACED}]+")
_ESCAPE = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|[nrtbf\"/]|)")

Key = TypeVar("Key", bound=Hashable)


class Passages(Generic[Key]):
    """The passages of texts, each with the key of a text that has it.

    A passage is `SIZE` words in a row, or a whole text of three to five words; a shorter text has
    none. Neither case and punctuation matter, nor the escapes of JSON. Of long texts, which repeat
    a passage wherever eleven words in a row are repeated, only each sixth one is kept.
    """

    def __init__(self, texts: Mapping[Key, str]) -> None:
        step = 1 if sum(map(len, texts.values())) <= _MOST_CHARACTERS else SIZE
        self._keys: dict[int, Key] = {}
        self._sizes: dict[str, set[int]] = {}  # by the first word
        for key, text in texts.items():
            tokens = _tokens(text)
            size = min(SIZE, len(tokens))
            for start in range(0, len(tokens) - size + 1 if size >= _FEWEST else 0, step):
                passage = tokens[start : start + size]
                self._keys[hash(tuple(passage))] = key
                self._sizes.setdefault(passage[0], set()).add(size)

    def numbers(self) -> Counter[Key]:
        """Return the number of passages by key."""
        return Counter(self._keys.values())

    def repeated_in(self, text: str) -> set[Key]:
        """Return the keys of passages that a text repeats."""
        return {self._keys[passage] for passage in self._in(text)}

    def discard(self, text: str) -> set[Key]:
        """Remove the passages that a text repeats, and return their keys."""
        return {self._keys.pop(passage) for passage in set(self._in(text))}

    def _in(self, text: str) -> Iterator[int]:
        tokens = _tokens(text) if self._keys else []
        for start, token in enumerate(tokens):
            for size in self._sizes.get(token, ()):
                passage = hash(tuple(tokens[start : start + size]))
                if passage in self._keys:
                    yield passage


def _tokens(text: str) -> list[str]:
    if "\\" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else " ", text)
    return _TOKEN.findall(text.lower())
