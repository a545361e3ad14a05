"""Reads plain text and everything that looks like it: CSV, JSON, XML, logs, source code."""

from __future__ import annotations

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
