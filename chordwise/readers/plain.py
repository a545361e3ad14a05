"""Reader for plain text and text-based formats: CSV, JSON, XML, logs, source code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath

from chordwise.domain import places
from chordwise.readers import encodings, sheets
from chordwise.readers.reader_output import Extracted

_TABLES = ("text/csv", "text/tab-separated-values")
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
    """Return the text unchanged.

    Raises:
        ReadError: The bytes are not text.
    """
    decoded = encodings.decode(data)
    media_type = _MEDIA_TYPES.get(PurePath(name).suffix.lower(), "text/plain")
    return Extracted(
        text=decoded.text,
        places=sheets.rows_of_csv(decoded.text) if media_type in _TABLES else (),
        media_type=media_type,
        encoding=decoded.encoding,
    )


_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(\S.*)")


def read_markdown(data: bytes, name: str) -> Extracted:  # noqa: ARG001 - the signature of all readers
    """Return the text; the first heading of level one is the title.

    Raises:
        ReadError: The bytes are not text.
    """
    decoded = encodings.decode(data)
    headings = list(_headings(decoded.text))
    sections = ((start, heading) for start, _, heading in headings)
    return Extracted(
        text=decoded.text,
        places=places.sections(sections, len(decoded.text)),
        media_type="text/markdown",
        title=next((heading for _, level, heading in headings if level == 1), ""),
        encoding=decoded.encoding,
    )


def _headings(markdown: str) -> Iterator[tuple[int, int, str]]:
    """Yield the position, level and text of each heading, but not lines in fenced code."""
    start, fence = 0, ""
    for line in markdown.splitlines(keepends=True):
        mark = line.lstrip(" ")[:3]
        if mark in ("```", "~~~") and fence in ("", mark):
            fence = "" if fence else mark
        elif not fence and (heading := _HEADING.match(line)):
            title = heading[2].rstrip().rstrip("#").strip()  # number signs may close it
            yield start, len(heading[1]), title
        start += len(line)
