"""Shows any file name on one line, unambiguously, in characters that a database takes."""

from __future__ import annotations

import unicodedata

_UNPRINTABLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
# Joiners are part of the spelling in Persian and Indian scripts, and of emoji.
_JOINERS = "\u200c\u200d"
_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LAST_OF_FOUR_DIGITS = 0xFFFF
_RAW_BYTES = range(0xDC80, 0xDD00)


def printable(name: str) -> str:
    r"""Return the name with everything invisible escaped: a raw byte as `\xff`, others as `\uffff`.

    Two different names never look the same for what is escaped here.
    """
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name
    return "".join(_escaped(character) for character in name)


def _escaped(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code in _RAW_BYTES:
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) in _UNPRINTABLE and character not in _JOINERS:
        return f"\\u{code:04x}" if code <= _LAST_OF_FOUR_DIGITS else f"\\U{code:08x}"
    return character
