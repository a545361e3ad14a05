"""Recognizes the text of scanned pages and pictures with Tesseract, out of the extra `ocr`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chordwise.readers import failures
from chordwise.readers.extracted import Extracted, Ocr
from chordwise.readers.scans import DOTS_PER_INCH, Scan

if TYPE_CHECKING:
    from PIL.Image import Image
    from tesserocr import PyTessBaseAPI

# What a picture may truly say of itself; Tesseract guesses better than a screen's 72.
_LEAST_DENSITY, _GREATEST_DENSITY = 100, 2_400


def read(scan: Scan, max_characters: int, ocr: Ocr) -> Extracted:
    """Return the text of the pages, recognized where they are pictures, a blank line between them.

    Raises:
        ReadError: Nothing was recognized, Tesseract failed, or the text is longer than the limit.
    """
    texts: list[str] = []
    unread, left = 0, max_characters
    with _opened(ocr) as tesseract:
        for page in scan.pages:
            text = page if page is None or isinstance(page, str) else _recognized(tesseract, page)
            unread += text is None
            texts.append((text or "").strip())
            left -= len(texts[-1])
            if left < 0:
                raise failures.too_many_characters(max_characters)
    if unread == len(texts):
        raise failures.ocr_failed()
    return Extracted(
        text="\n\n".join(texts),
        media_type=scan.media_type,
        title=scan.title,
        pages=len(texts),
        pages_unread=unread,
    )


def _opened(ocr: Ocr) -> PyTessBaseAPI:
    from tesserocr import PSM, PyTessBaseAPI  # noqa: PLC0415 - of an extra

    try:
        # Pages lie on their sides, or upside down, more often than one would think.
        return PyTessBaseAPI(path=ocr.data, lang=ocr.languages, psm=PSM.AUTO_OSD)
    except RuntimeError as error:
        raise failures.ocr_failed() from error


def _recognized(tesseract: PyTessBaseAPI, page: Image) -> str | None:
    """Return the text of a page; `None` if Tesseract failed over it."""
    density = int(page.info.get(DOTS_PER_INCH, (0, 0))[0])
    try:
        tesseract.SetImage(page)
        if _LEAST_DENSITY <= density <= _GREATEST_DENSITY:
            tesseract.SetSourceResolution(density)
        text: str = tesseract.GetUTF8Text()
    except RuntimeError:
        return None
    return text
