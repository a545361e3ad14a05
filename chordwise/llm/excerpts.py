"""What may be quoted of a server's words in a sentence of ours: short, one line, no secrets."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

MAX_CHARACTERS = 300
# An echo of this many characters in a row counts as a piece of the hidden text.
_ECHO_CHARACTERS = 24
_TITLE = re.compile(rb"<title[^>]*>([^<]{1,500})", re.IGNORECASE)


def excerpt(text: str, hidden: Iterable[str] = ()) -> str:
    """Return the beginning of `text`, escaped, on one line.

    Where it repeats a part of a `hidden` text (the key, the prompt), nothing of it is returned.
    """
    line = " ".join(text[: 4 * MAX_CHARACTERS].split())
    if any(_echoes(line, secret) for secret in hidden):
        return "(not shown: it repeats the request)"
    shown = "".join(_escaped(character) for character in line)
    return shown if len(shown) <= MAX_CHARACTERS else shown[: MAX_CHARACTERS - 1] + "…"


def page_title(raw: bytes) -> str:
    """Return the title of a web page, or nothing."""
    found = _TITLE.search(raw[:65_536])
    return excerpt(html.unescape(found[1].decode(errors="replace"))) if found else ""


def _echoes(line: str, secret: str) -> bool:
    secret = " ".join(secret.split())
    length = min(_ECHO_CHARACTERS, len(secret))
    if length == 0:
        return False
    return any(line[start : start + length] in secret for start in range(len(line) - length + 1))


def _escaped(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]
