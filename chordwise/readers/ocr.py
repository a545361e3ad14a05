"""Recognizes the text of scanned pages with Tesseract, a program that users install themselves."""

from __future__ import annotations

import subprocess

import pypdfium2

from chordwise.readers import failures, pdf
from chordwise.readers.extracted import Extracted, Ocr

_DOTS_PER_INCH, _POINTS_PER_INCH = 300, 72
# A page of A3; what claims to be larger is looked at less closely.
_MOST_PIXELS = 18_000_000


def read(data: bytes, max_characters: int, ocr: Ocr) -> Extracted:
    """Return the recognized text of the pages, a blank line between them.

    Raises:
        ReadError: Nothing was recognized, the program failed, or the text is longer than the limit.
    """
    document = pdf.opened(data)
    texts: list[str] = []
    unread, left = 0, max_characters
    for index in range(len(document)):
        text = _recognized(document, index, ocr)
        unread += text is None
        texts.append((text or "").strip())
        left -= len(texts[-1])
        if left < 0:
            raise failures.too_many_characters(max_characters)
    if unread == len(texts):
        raise failures.ocr_failed()
    return Extracted(
        text="\n\n".join(texts),
        media_type="application/pdf",
        title=document.get_metadata_value("Title"),
        pages=len(texts),
        pages_unread=unread,
    )


def _recognized(document: pypdfium2.PdfDocument, index: int, ocr: Ocr) -> str | None:
    """Return the text of a page; `None` if it is damaged or the program failed over it."""
    try:
        picture = _picture(document[index])
    except pypdfium2.PdfiumError:
        return None
    done = subprocess.run(  # noqa: S603 - the program that the settings allow, no shell
        [ocr.program, "-", "-", "-l", ocr.languages],
        input=picture,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"OMP_THREAD_LIMIT": "1"},
        check=False,
    )
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _picture(page: pypdfium2.PdfPage) -> bytes:
    """Return the page as a gray picture in the simplest of formats (PGM)."""
    width, height = page.get_size()
    scale = _DOTS_PER_INCH / _POINTS_PER_INCH
    scale = min(scale, (_MOST_PIXELS / max(1.0, width * height)) ** 0.5)
    bitmap = page.render(scale=scale, grayscale=True)
    pixels = bytes(bitmap.buffer)
    rows = (
        pixels[start : start + bitmap.width]
        for start in range(0, bitmap.height * bitmap.stride, bitmap.stride)
    )
    page.close()
    return b"P5 %d %d 255\n" % (bitmap.width, bitmap.height) + b"".join(rows)
