"""Reads plain text and everything that looks like it: CSV, JSON, XML, logs, source code."""

from __future__ import annotations

import re
from pathlib import PurePath

from chordwise.readers import encodings
from chordwise.readers.extracted import Extracted

_MEDIA_TYPES = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}


def read(data: bytes, name: str) -> Extracted:
    """Return the text as it stands.

    Raises:
        ReadError: The bytes are no text.
    """
    decoded = encodings.decode(data)
    media_type = _MEDIA_TYPES.get(PurePath(name).suffix.lower(), "text/plain")
    return Extracted(text=decoded.text, media_type=media_type, encoding=decoded.encoding)


_HEADING = re.compile(r"^#[ \t]+(.+)$", re.MULTILINE)
_FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_HEAD_CHARACTERS = 20_000


def read_markdown(data: bytes, name: str) -> Extracted:  # noqa: ARG001 - the signature of all readers
    """Return the text; the first heading of level one is the title.

    Raises:
        ReadError: The bytes are no text.
    """
    decoded = encodings.decode(data)
    heading = _HEADING.search(_FENCED.sub("", decoded.text[:_HEAD_CHARACTERS]))
    return Extracted(
        text=decoded.text,
        media_type="text/markdown",
        title=_without_closing(heading.group(1)) if heading else "",
        encoding=decoded.encoding,
    )


def _without_closing(heading: str) -> str:
    """Return a heading without the number signs that may close it."""
    return heading.rstrip().rstrip("#").strip()
