"""Reads RTF: the text that is shown, a bar between the cells of a table."""

from __future__ import annotations

from striprtf.striprtf import rtf_to_text

from chordwise.readers import failures
from chordwise.readers.extracted import Extracted

MEDIA_TYPE = "application/rtf"


def read(data: bytes, max_characters: int) -> Extracted:
    """Return the text; what the file's own encodings cannot say is marked as replaced.

    Raises:
        ReadError: The file is damaged, or longer than the limit.
    """
    try:
        text = rtf_to_text(  # type: ignore[no-untyped-call]  # it declares no types
            data.decode("latin-1"), encoding="cp1252", errors="replace"
        )
    except (ValueError, LookupError, IndexError, UnicodeError) as error:
        raise failures.malformed("is a damaged RTF file.") from error
    if len(text) > max_characters:
        raise failures.too_many_characters(max_characters)
    return Extracted(text=text.strip(), media_type=MEDIA_TYPE)
