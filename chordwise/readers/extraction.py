"""From bytes to text: recognises the format, calls its reader, and judges what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chordwise.readers import docx, failures, html, mail, markdown, pdf, plain
from chordwise.readers.extracted import Extracted
from chordwise.readers.formats import Format, detect

_TEXTUAL: Mapping[Format, Callable[[bytes, str], Extracted]] = {
    Format.PLAIN: plain.read,
    Format.MARKDOWN: markdown.read,
}
_STRUCTURED: Mapping[Format, Callable[[bytes, int], Extracted]] = {
    Format.HTML: html.read,
    Format.PDF: pdf.read,
    Format.DOCX: docx.read,
    Format.EMAIL: mail.read,
}


def extract(data: bytes, name: str, max_characters: int) -> Extracted:
    """Return the text of a file; `name` only helps where the content is silent.

    Raises:
        ReadError: There is no text to be had, and why.
    """
    if not data:
        raise failures.empty()
    kind = detect(data, name)
    if kind in _TEXTUAL:
        extracted = _TEXTUAL[kind](data, name)
    else:
        extracted = _STRUCTURED[kind](data, max_characters)
    if len(extracted.text) > max_characters:
        raise failures.too_many_characters(max_characters)
    if not extracted.text.strip(" \t\r\n\f\v\0\ufeff\u00a0\u200b\u3000"):
        raise failures.empty()
    return extracted
