"""Reader for Markdown: the text unchanged, with its headings as places."""

from __future__ import annotations

from chordwise.domain import outline, places
from chordwise.readers import encodings, failures
from chordwise.readers.formats import Format, of_bytes
from chordwise.readers.limits import BYTES_PER_CHARACTER
from chordwise.readers.reader_output import Extracted

_NAMES = (".md", ".markdown", ".mdown", ".mkd")


def read(data: bytes, max_characters: int) -> Extracted:
    """Return the text; the first heading of level one is the title."""
    if len(data) > max_characters * BYTES_PER_CHARACTER:
        raise failures.too_many_characters(max_characters)
    decoded = encodings.decode(data)
    headings = list(outline.headings(decoded.text))
    sections = ((start, heading) for start, _, heading in headings)
    return Extracted(
        text=decoded.text,
        places=places.sections(sections, len(decoded.text)),
        media_type="text/markdown",
        title=next((heading for _, level, heading in headings if level == 1), ""),
        encoding=decoded.encoding,
    )


FORMAT = Format(
    "Markdown", of_bytes(read), matches=lambda _, extension: extension in _NAMES, rank=2
)
