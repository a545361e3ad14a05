"""Text that is safe for a terminal, local times, and JSON."""

from __future__ import annotations

import json
import re
from datetime import datetime

from chordwise.domain.json_values import as_json
from chordwise.domain.visible_text import is_displayable, visible

# ECMA-48: control sequences; operating system commands and similar strings, with terminators.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)


def safe(text: str) -> str:
    """Return the text without escape sequences and invisible characters; newlines are kept."""
    if text.isascii() and text.isprintable():
        return text
    bare = _ESCAPES.sub("", text.replace("\r\n", "\n").replace("\t", " "))
    return "".join(
        character for character in bare if character == "\n" or is_displayable(character)
    )


def one_line(text: str, width: int | None = None) -> str:
    """Return the safe text on one line with single spaces, cut to `width`."""
    line = " ".join(safe(text.replace("\u2028", " ").replace("\u2029", " ")).split())
    if width is None or len(line) <= width:
        return line
    return f"{line[: width - 1].rstrip()}…"


PREVIEW = "Preview without a language model. Connect one: --model openai/NAME or local/FILE.gguf"


def local_time(when: datetime) -> str:
    """Return a time in the time zone of this machine, without seconds."""
    return f"{when.astimezone():%Y-%m-%d %H:%M}"


SCHEMA_VERSION = 1


def json_document(**members: object) -> str:
    """Return one JSON document with these members and a newline."""
    return f"{encoded({'schema_version': SCHEMA_VERSION, **members}, indent=2)}\n"


def encoded(value: object, indent: int | None = None) -> str:
    """Return a value as JSON text that is safe for a terminal."""
    return visible(json.dumps(as_json(value), ensure_ascii=False, indent=indent))
