"""Text of documents and models without what a terminal would execute, and numbers in words."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from decimal import Decimal

from chordwise.domain.json_values import JsonObject, plain
from chordwise.domain.money import dollars
from chordwise.domain.visible_text import is_shown, visible

# ECMA-48: control sequences; operating system commands and their like up to their terminator.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)


def safe(text: str) -> str:
    """Return the text without escape sequences and invisible characters; lines stay."""
    if text.isascii() and text.isprintable():
        return text
    bare = _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\t", " "))
    return "".join(character for character in bare if character == "\n" or is_shown(character))


def one_line(text: str, width: int | None = None) -> str:
    """Return the safe text with every run of white space as one blank, cut to `width`."""
    line = " ".join(safe(text.replace("\u2028", " ").replace("\u2029", " ")).split())
    if width is None or len(line) <= width:
        return line
    return f"{line[: width - 1].rstrip()}…"


def escape_json(document: str) -> str:
    r"""Escape what a terminal might obey in a JSON text; as `\u…` it means the same."""
    if document.isascii():
        return document.replace("\x7f", "\\u007f")
    return visible(document)


EXTRACTIVE = (
    "Answered by the built-in extractive model: it quotes and counts, it is not a language model."
)
_THOUSAND = 1_000
_MILLION = 1_000_000
_MINUTE = 60
_HOUR = 3_600


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 document, 2 documents, 3 analyses."""
    if number == 1:
        return f"1 {noun}"
    plural = {"analysis": "analyses", "has": "have"}.get(noun, f"{noun}s")
    return f"{number:,} {plural}"


def approximate(number: int) -> str:
    """Return a large number in three digits: 980, 12.3k, 4.56M."""
    if number < _THOUSAND:
        return str(number)
    if round(number, -3) < _MILLION:
        return f"{number / _THOUSAND:.3g}k"
    return f"{number / _MILLION:.3g}M"


def money(cost_usd: Decimal, unpriced: int, calls: int) -> str:
    """Return what calls cost, and say how many of them have an unknown cost."""
    if unpriced and (not cost_usd or unpriced >= calls):
        return "cost unknown"
    known = dollars(cost_usd)
    return f"{known} and {counted(unpriced, 'call')} of unknown cost" if unpriced else known


def span(length: timedelta) -> str:
    """Return a length of time, rounded as one would say it."""
    seconds = length.total_seconds()
    if seconds < _MINUTE:
        return f"{max(1, round(seconds))} s"
    if seconds < _HOUR:
        return f"{round(seconds / _MINUTE)} min"
    return f"{seconds / _HOUR:.1f} h"


def moment(when: datetime) -> str:
    """Return a moment on this machine's clock."""
    return f"{when.astimezone():%Y-%m-%d %H:%M}"


def score(value: float) -> str:
    """Return a number from 0 to 1 with two digits, never rounded up to 1."""
    return f"{value if value >= 1 else min(value, 0.99):.2f}"


def share(value: float) -> str:
    """Return a number from 0 to 1 as a percentage that is never rounded up to all."""
    percent = value * 100
    return f"{percent:.0f} %" if percent in (0, 100) else f"{min(percent, 99.9):.1f} %"


SCHEMA_VERSION = 1


def document(**members: object) -> str:
    """Return one JSON document with these members, and a line end."""
    whole: JsonObject = {"schema_version": SCHEMA_VERSION}
    whole.update({name: plain(value) for name, value in members.items()})
    return f"{encoded(whole, indent=2)}\n"


def encoded(value: object, indent: int | None = None) -> str:
    """Return a value as JSON text without anything that a terminal would execute."""
    return escape_json(json.dumps(plain(value), ensure_ascii=False, indent=indent))
