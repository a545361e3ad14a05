"""Reader for Markdown: the text unchanged, with its headings as places."""

from __future__ import annotations

import re
from collections.abc import Iterator

from chordwise.domain import places
from chordwise.readers import encodings, failures
from chordwise.readers.format import Format, of_bytes
from chordwise.readers.limits import BYTES_PER_CHARACTER
from chordwise.readers.reader_output import Extracted

_NAMES = (".md", ".markdown", ".mdown", ".mkd")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(\S.*)")


def read(data: bytes, max_characters: int) -> Extracted:
    """Return the text; the first heading of level one is the title."""
    if len(data) > max_characters * BYTES_PER_CHARACTER:
        raise failures.too_many_characters(max_characters)
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


FORMAT = Format(
    "Markdown", of_bytes(read), matches=lambda _, extension: extension in _NAMES, rank=2
)
