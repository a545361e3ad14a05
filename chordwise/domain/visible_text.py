"""Escapes control and invisible characters in texts and file names, for terminals and pages."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_UNSAFE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
# Joiners are part of the spelling in Persian and Indian scripts, and part of emoji.
_JOINERS = "\u200c\u200d"


def is_displayable(character: str) -> bool:
    """Return whether a terminal displays a character and does not interpret it."""
    return character in _JOINERS or unicodedata.category(character) not in _UNSAFE


def visible(text: str) -> str:
    """Return the text with invisible characters except line ends and tabs escaped as in JSON."""
    return _NOT_ASCII_TEXT.sub(lambda match: _visible(match[0]), text)


_NOT_ASCII_TEXT = re.compile(r"[^\n\t -~]")


@lru_cache(maxsize=10_000)
def _visible(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    escaped = "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
    return character if is_displayable(character) else escaped


# Except NUL, which PostgreSQL cannot store, and surrogates.
_ESCAPE = re.compile(r"\\u((?!0000|d[89a-f])[0-9a-f]{4})")


def restored(text: str) -> str:
    r"""Return a text from a page with the characters that its `\u…` escapes stand for."""

    def character(match: re.Match[str]) -> str:
        decoded = chr(int(match[1], 16))
        return match[0] if is_displayable(decoded) else decoded

    return _ESCAPE.sub(character, text)


_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LAST_OF_FOUR_DIGITS = 0xFFFF
_RAW_BYTES = range(0xDC80, 0xDD00)


def printable(name: str) -> str:
    r"""Return the name with invisible characters escaped as `\uXXXX`, and raw bytes as `\xXX`.

    The escaping is unambiguous: two different names never have the same escaped form.
    """
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name
    return "".join(_escaped_in_name(character) for character in name)


def _escaped_in_name(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code in _RAW_BYTES:
        return f"\\x{code - 0xDC00:02x}"
    if not is_displayable(character):
        return f"\\u{code:04x}" if code <= _LAST_OF_FOUR_DIGITS else f"\\U{code:08x}"
    return character
