"""Text recognition on scanned pages and pictures with Tesseract, from the extra `ocr`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chordwise.domain.places import Layout
from chordwise.readers import failures
from chordwise.readers.reader_output import CharacterAllowance, Extracted, Ocr, PageText, of_pages
from chordwise.readers.scans import Scan, density_of, points_of_pixel

if TYPE_CHECKING:
    from PIL.Image import Image
    from tesserocr import PyTessBaseAPI


def read(scan: Scan, max_characters: int, ocr: Ocr) -> Extracted:
    """Return the text of the pages, separated by blank lines; pictures of pages are recognized.

    Raises:
        ReadError: Nothing was recognized, Tesseract failed, or the text is longer than the limit.
    """
    pages: list[PageText] = []
    unread, spend = 0, CharacterAllowance(max_characters)
    with _opened(ocr) as tesseract:
        for number, page in enumerate(scan.pages, start=1):
            if page is None or isinstance(page, PageText):
                found = page
            else:
                found = _recognized(tesseract, page, number)
            unread += found is None
            pages.append(found or PageText(number=number, text="", width=0, height=0))
            spend(len(pages[-1].text))
    if unread == len(pages):
        raise failures.ocr_failed()
    text, places = of_pages(pages)
    return Extracted(
        text=text,
        places=places,
        media_type=scan.media_type,
        title=scan.title,
        pages=len(pages),
        pages_unread=unread,
    )


def _opened(ocr: Ocr) -> PyTessBaseAPI:
    from tesserocr import PSM, PyTessBaseAPI  # noqa: PLC0415 - of an extra

    try:
        # Scanned pages are often rotated or upside down.
        return PyTessBaseAPI(path=ocr.data, lang=ocr.languages, psm=PSM.AUTO_OSD)
    except RuntimeError as error:
        raise failures.ocr_failed() from error


def _recognized(tesseract: PyTessBaseAPI, page: Image, number: int) -> PageText | None:
    """Return the text; without a plausible density, a pixel counts as a point."""
    density, points = density_of(page), points_of_pixel(page)
    try:
        tesseract.SetImage(page)
        if density is not None:
            tesseract.SetSourceResolution(density)
        text = tesseract.GetUTF8Text().strip()
        layout = _layout(tesseract, text, points)
    except RuntimeError:
        return None
    width, height = page.width * points, page.height * points
    return PageText(number=number, text=text, width=width, height=height, layout=layout.packed())


def _layout(tesseract: PyTessBaseAPI, text: str, points: float) -> Layout:
    from tesserocr import RIL, iterate_level  # noqa: PLC0415 - of an extra

    layout, end = Layout(), 0
    for each in iterate_level(tesseract.GetIterator(), RIL.WORD) if text else ():
        word, box = each.GetUTF8Text(RIL.WORD).strip(), each.BoundingBox(RIL.WORD)
        start = text.find(word, end)
        if word and box and start >= 0:
            left, top, right, bottom = (edge * points for edge in box)
            span = start, start + len(word)
            begins_line = "\n" in text[end:start]
            layout.add_word(span, (left, top, right, bottom), begins_line=begins_line)
            end = span[1]
    return layout
