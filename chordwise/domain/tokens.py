"""Estimates of the number of tokens in a text, without the tokenizer of a vendor.

The weights of the character classes keep the estimate above the count of o200k for prose, tables
and JSON in Latin and other scripts. The error message of a provider takes precedence.
"""

from __future__ import annotations

import math
import string

_LETTERS = (string.ascii_letters + " ").encode()
_DIGITS = string.digits.encode()
_NOT_ASCII = bytes(range(128, 256))

_LETTERS_PER_TOKEN = 4.0
_DIGITS_PER_TOKEN = 1.8
_SIGNS_PER_TOKEN = 1.3
_OTHER_BYTES_PER_TOKEN = 3.0
_WEIGHED_TOGETHER = 1_000_000


def weigh(text: str) -> float:
    """Return the estimate before rounding; additive over the parts of a text."""
    letters = digits = signs = other_bytes = 0
    for start in range(0, len(text), _WEIGHED_TOGETHER):
        part = text[start : start + _WEIGHED_TOGETHER]
        encoded = part.encode("utf-8", "surrogatepass")
        ascii_part = encoded if part.isascii() else encoded.translate(None, _NOT_ASCII)
        others = ascii_part.translate(None, _LETTERS)
        signs_of_part = len(others.translate(None, _DIGITS))
        letters += len(ascii_part) - len(others)
        digits += len(others) - signs_of_part
        signs += signs_of_part
        other_bytes += len(encoded) - len(ascii_part)
    return (
        letters / _LETTERS_PER_TOKEN
        + digits / _DIGITS_PER_TOKEN
        + signs / _SIGNS_PER_TOKEN
        + other_bytes / _OTHER_BYTES_PER_TOKEN
    )


def min_weight(characters: int) -> float:
    """Return the lowest value of `weigh` for any text with this number of characters."""
    return characters / _LETTERS_PER_TOKEN


def estimate(text: str) -> int:
    """Return a conservative estimate of the number of tokens; 0 only for the empty text."""
    return math.ceil(weigh(text))
