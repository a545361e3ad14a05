"""Characters that a terminal obeys, or does not show: escaped, so that they are seen."""

from __future__ import annotations

import unicodedata

_UNSAFE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
# Joiners are part of the spelling in Persian and Indian scripts, and of emoji.
_JOINERS = "\u200c\u200d"


def is_shown(character: str) -> bool:
    """Tell whether a terminal shows a character, and does nothing else."""
    return character in _JOINERS or unicodedata.category(character) not in _UNSAFE


def visible(text: str) -> str:
    r"""Return the text with every other character as `\u…`; line ends and tabs stay.

    In JSON it means the same.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character in "\n\t" or is_shown(character) else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
