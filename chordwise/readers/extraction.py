"""From a file to text: recognises the format, calls its reader, and judges what came out."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

from chordwise.errors import ReadError
from chordwise.readers import (
    archives,
    docx,
    epub,
    failures,
    html,
    mail,
    mailbox,
    markdown,
    ocr,
    open_document,
    outlook,
    pdf,
    plain,
    presentation,
    rich_text,
    rows,
    scans,
    sheets,
    word97,
)
from chordwise.readers.extracted import Extracted, Extraction, Source, Unread, Wanted
from chordwise.readers.formats import (
    Format,
    detect,
    is_mailbox,
    is_zip,
    require_honest_name,
    zip_format,
)

_TEXTUAL: Mapping[Format, Callable[[bytes, str], Extracted]] = {
    Format.PLAIN: plain.read,
    Format.MARKDOWN: markdown.read,
}
# Read out of the file itself, whose pictures may be large.
_PACKED: Mapping[Format, Callable[[Source, int], Extracted]] = {
    Format.DOCX: docx.read,
    Format.PPTX: presentation.read,
    Format.OPEN_DOCUMENT: open_document.read,
    Format.EPUB: epub.read,
}
_STRUCTURED: Mapping[Format, Callable[[bytes, int], Extracted]] = {
    Format.HTML: html.read,
    Format.PDF: pdf.read,
    Format.RTF: rich_text.read,
    Format.WORD_97: word97.read,
    Format.PICTURE: scans.refuse_picture,
}
_SCANS: Mapping[Format, Callable[[bytes], scans.Scan]] = {
    Format.PDF: scans.of_pdf,
    Format.PICTURE: scans.of_picture,
}
_CONTAINERS: Mapping[Format, Callable[[bytes, Wanted], Iterator[Extraction]]] = {
    Format.EMAIL: mail.documents,
    Format.OUTLOOK: outlook.documents,
    Format.SHEETS: sheets.documents,
}
_HEAD_BYTES = 4_096
_BYTES_PER_CHARACTER = 4
_BLANK = " \t\r\n\f\v\0\ufeff\u00a0\u200b\u3000"


def extract(file: BinaryIO, name: str, wanted: Wanted) -> Extracted | Iterator[Extraction]:
    """Return the text of a file, or what is in it where that is several texts or files.

    Archives, mailboxes and office documents are read where they lie, all else is taken into memory.
    `name` only helps where the content is silent.

    Raises:
        ReadError: There is no text to be had, and why; from the iterator, too.
    """
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if not head:
        raise failures.empty()
    if is_zip(head):
        kind = zip_format(file)
        file.seek(0)
        if kind is Format.ZIP:
            return _judged(archives.documents(file, wanted), wanted.max_characters)
        if kind in _PACKED:
            extracted = _PACKED[kind](file, wanted.max_characters)
            _require_text(extracted, wanted.max_characters)
            return extracted
    elif is_mailbox(head, name):
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        return _judged(mailbox.documents(mapped, wanted), wanted.max_characters)
    data = file.read()
    return _of_bytes(data, detect(data, name), name, wanted)


def _of_bytes(
    data: bytes, kind: Format, name: str, wanted: Wanted
) -> Extracted | Iterator[Extraction]:
    if kind in _SCANS and wanted.ocr is not None:
        recognized = ocr.read(_SCANS[kind](data), wanted.max_characters, wanted.ocr)
        _require_text(recognized, wanted.max_characters)
        return recognized
    if kind in _CONTAINERS:
        return _judged(_CONTAINERS[kind](data, wanted), wanted.max_characters)
    if kind in _TEXTUAL and len(data) > wanted.max_characters * _BYTES_PER_CHARACTER:
        raise failures.too_many_characters(wanted.max_characters)
    if kind is Format.PLAIN and wanted.columns.text:
        found = rows.documents(data, name, wanted)
        if found is not None:
            return _judged(found, wanted.max_characters)
    extracted = _one(data, kind, name, wanted.max_characters)
    _require_text(extracted, wanted.max_characters)
    return extracted


def _one(data: bytes, kind: Format, name: str, max_characters: int) -> Extracted:
    if kind not in _TEXTUAL:
        return _STRUCTURED[kind](data, max_characters)
    try:
        return _TEXTUAL[kind](data, name)
    except ReadError as error:
        if error.reason == "binary":
            require_honest_name(name)
        raise


def _judged(found: Iterator[Extraction], max_characters: int) -> Iterator[Extraction]:
    """Pass on what is in a file, and name what is no text in it.

    Raises:
        ReadError: There is nothing in it, or it cannot be read on.
    """
    is_empty = True
    for each in found:
        is_empty = False
        try:
            if isinstance(each, Extracted):
                _require_text(each, max_characters)
        except ReadError as error:
            yield Unread(place=each.place, error=error)
        else:
            yield each
    if is_empty:
        raise failures.empty()


def _require_text(extracted: Extracted, max_characters: int) -> None:
    if len(extracted.text) > max_characters:
        raise failures.too_many_characters(max_characters)
    if not extracted.text.strip(_BLANK):
        raise failures.empty()
