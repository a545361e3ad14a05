"""Text of documents and models made harmless for a terminal: shown, never obeyed."""

from __future__ import annotations

import re

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
