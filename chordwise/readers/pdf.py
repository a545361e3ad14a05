"""Reads the text layer of a PDF, page by page, as far as it lies on the page."""

from __future__ import annotations

import re

import pypdfium2
from pypdfium2 import raw

from chordwise.errors import ReadError
from chordwise.readers import failures, invisible_text
from chordwise.readers.extracted import Extracted

# PDFium's mark of a hyphen at a line's end (the word is whole without it), and glyphs with no text.
_CONTROLS = re.compile("[\0-\x08\x0b\x0e-\x1f\ufffe]")
_HEADER, _HEADER_BYTES = b"%PDF-", 1_024
# Readers look for the end in the last kilobyte, as Acrobat always has.
_END, _END_BYTES = b"%%EOF", 1_024


def read(data: bytes, max_characters: int) -> Extracted:
    """Return the pages' text, a blank line between pages; what lies off the page is left out.

    Raises:
        ReadError: The file is encrypted, damaged, a scan, empty, or longer than the limit.
    """
    document = opened(data)
    pages = _Pages(document, max_characters)
    if not pages.has_text:
        raise pages.failure()
    return Extracted(
        text="\n\n".join(pages.texts),
        media_type="application/pdf",
        title=document.get_metadata_value("Title"),
        pages=len(document),
        pages_unread=pages.unread,
        pages_scanned=pages.scanned,
        invisible_characters=pages.invisible_characters,
    )


def text_of(page: pypdfium2.PdfTextPage) -> str:
    """Return the text that lies on a page."""
    return _CONTROLS.sub("", page.get_text_bounded()).strip("\r\n")


def opened(data: bytes) -> pypdfium2.PdfDocument:
    """Return a document whose pages can be looked at.

    Raises:
        ReadError: The file is encrypted, cut off or damaged.
    """
    is_cut_off = _HEADER in data[:_HEADER_BYTES] and _END not in data[-_END_BYTES:]
    return _open(_from_header(data), is_cut_off=is_cut_off)


def _from_header(data: bytes) -> bytes:
    """Cut off what a mail program or a server put in front; supply a header that was lost."""
    position = data[:_HEADER_BYTES].find(_HEADER)
    return data[position:] if position >= 0 else _HEADER + b"1.4\n" + data


def _open(data: bytes, *, is_cut_off: bool) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            raise failures.encrypted() from error
        if is_cut_off:
            raise failures.truncated("a PDF") from error
        raise failures.malformed("is a damaged PDF.") from error


class _Pages:
    """The text of all pages, and what else was seen on the way through them."""

    def __init__(self, document: pypdfium2.PdfDocument, max_characters: int) -> None:
        self.texts: list[str] = []
        self.unread = 0
        self.scanned = 0
        self.invisible_characters = 0
        self.has_marks = False
        self._left = max_characters
        for index in range(len(document)):
            self._add(document, index)
            if self._left < 0:
                raise failures.too_many_characters(max_characters)

    @property
    def has_text(self) -> bool:
        """Whether any page holds more than white space."""
        return any(text.strip() for text in self.texts)

    def failure(self) -> ReadError:
        """Return why there is no text: damage, pictures only, or nothing at all."""
        if self.unread:
            return failures.malformed("is a damaged PDF, no page of which can be read.")
        return failures.needs_ocr() if self.has_marks else failures.empty()

    def _add(self, document: pypdfium2.PdfDocument, index: int) -> None:
        try:
            page = document[index]
        except pypdfium2.PdfiumError:
            self.unread += 1
            return
        text_page = page.get_textpage()
        text = text_of(text_page)
        self.has_marks = self.has_marks or raw.FPDFPage_CountObjects(page) > 0
        self.scanned += not text.strip() and _is_picture(page)
        self.invisible_characters += invisible_text.count(page, text_page) if text else 0
        self.texts.append(text)
        self._left -= len(text)
        page.close()


def _is_picture(page: pypdfium2.PdfPage) -> bool:
    """Whether images cover most of the page, as on a scanned one."""
    width, height = page.get_size()
    covered = 0.0
    try:
        for image in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE]):
            left, bottom, right, top = image.get_bounds()
            covered += (right - left) * (top - bottom)
    except pypdfium2.PdfiumError:
        return False
    return bool(covered > width * height / 2)
