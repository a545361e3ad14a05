"""Text of documents and models without what a terminal would execute, moments, and JSON."""

from __future__ import annotations

import json
import re
from datetime import datetime

from chordwise.domain.json_values import JsonObject, plain
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


def moment(when: datetime) -> str:
    """Return a moment on this machine's clock."""
    return f"{when.astimezone():%Y-%m-%d %H:%M}"


SCHEMA_VERSION = 1


def document(**members: object) -> str:
    """Return one JSON document with these members, and a line end."""
    whole: JsonObject = {"schema_version": SCHEMA_VERSION}
    whole.update({name: plain(value) for name, value in members.items()})
    return f"{encoded(whole, indent=2)}\n"


def encoded(value: object, indent: int | None = None) -> str:
    """Return a value as JSON text without anything that a terminal would execute."""
    return escape_json(json.dumps(plain(value), ensure_ascii=False, indent=indent))
