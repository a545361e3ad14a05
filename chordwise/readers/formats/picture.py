"""Pictures and scans: recognized by Tesseract, or rendered for a model; need an extra."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from chordwise.domain.pictures import Picture
from chordwise.domain.places import Layout
from chordwise.readers import failures
from chordwise.readers.formats import Format, Scan, of_bytes, pdf
from chordwise.readers.limits import CharacterAllowance
from chordwise.readers.reader_output import (
    Extracted,
    PageText,
    ReadOptions,
    RenderedPage,
    of_pages,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from tesserocr import PyTessBaseAPI

# Plausible densities; the guess of Tesseract is better than the 72 of a screen.
_LEAST_DENSITY, _GREATEST_DENSITY = 100, 2_400
_JPEG_QUALITY = 85
# A smaller difference from the rest of the page is paper, not ink.
_FAINTEST_INK = 24
_PICTURES = (
    (b"\x89PNG\r\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)
_DAMAGES = (OSError, ValueError, SyntaxError, IndexError, TypeError, struct.error, zlib.error)


def kind_of(data: bytes) -> str:
    """Return `PNG`, `JPEG` or `TIFF`; empty for any other content."""
    return next((kind for magic, kind in _PICTURES if data.startswith(magic)), "")


def of_picture(data: bytes) -> Scan:
    """Return the pages of a picture in upright orientation; a TIFF may have several.

    Raises:
        ReadError: The picture is damaged or far too large.
    """
    from PIL import Image  # noqa: PLC0415 - of an extra

    kind = kind_of(data)
    try:
        picture = Image.open(io.BytesIO(data), formats=[kind])
        frames = getattr(picture, "n_frames", 1) if kind == "TIFF" else 1
    except Image.DecompressionBombError as error:
        raise failures.out_of_memory() from error
    except _DAMAGES as error:
        raise failures.malformed(f"is a damaged image ({kind}).") from error
    return Scan(
        pages=(_frame(picture, index) for index in range(frames)),
        media_type=f"image/{kind.lower()}",
    )


def picture_of(data: bytes, number: int) -> RenderedPage:
    """Render a page of a picture in color; pages count from 1.

    Raises:
        ReadError: It is damaged, or has no such page.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415 - of an extra

    try:
        picture = Image.open(io.BytesIO(data), formats=[kind_of(data)])
        picture.seek(number - 1)
        picture.draft("RGB", _bounded(picture.size, pdf.MAX_PICTURE_PIXELS))
        frame = _on_paper(ImageOps.exif_transpose(picture), "RGB")
    except (*_DAMAGES, EOFError, Image.DecompressionBombError) as error:
        raise failures.malformed(f"has no page {number} that can be shown.") from error
    frame.thumbnail(_bounded(frame.size, pdf.MAX_PICTURE_PIXELS))
    return RenderedPage(width=frame.width, height=frame.height, pixels=frame.tobytes())


def rendered(scan: Scan, options: ReadOptions) -> Iterator[PageText | Extracted]:
    """Yield each page, as a picture if it has no text, followed by an empty text with the metadata.

    An empty page has an empty text and no picture.
    """
    number = unread = pictures = 0
    for number, page in enumerate(scan.pages, start=1):
        if page is None:
            unread += 1
            yield PageText(number=number, text="", width=0, height=0)
            continue
        shown = page if isinstance(page, PageText) else _rendered(page, number, options.edge_pixels)
        pictures += shown.picture is not None
        if pictures > options.shown_pages:
            raise failures.too_many_pages(options.shown_pages)
        yield shown
    if unread == number:
        raise failures.malformed("is a scan, no page of which can be shown.")
    yield Extracted(
        text="", media_type=scan.media_type, title=scan.title, pages=number, pages_unread=unread
    )


def recognized(scan: Scan, options: ReadOptions) -> Extracted:
    """Return the text of the pages, separated by blank lines; pictures of pages are recognized."""
    pages: list[PageText] = []
    unread, spend = 0, CharacterAllowance(options.max_characters)
    with _opened(options) as tesseract:
        for number, page in enumerate(scan.pages, start=1):
            if page is None or isinstance(page, PageText):
                content = page
            else:
                content = _recognized(tesseract, page, number)
            unread += content is None
            pages.append(content or PageText(number=number, text="", width=0, height=0))
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


def _opened(options: ReadOptions) -> PyTessBaseAPI:
    from tesserocr import PSM, PyTessBaseAPI  # noqa: PLC0415 - of an extra

    try:
        # Scanned pages are often rotated or upside down.
        return PyTessBaseAPI(path=options.ocr_data, lang=options.ocr_languages, psm=PSM.AUTO_OSD)
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
    for cursor in iterate_level(tesseract.GetIterator(), RIL.WORD) if text else ():
        word, box = cursor.GetUTF8Text(RIL.WORD).strip(), cursor.BoundingBox(RIL.WORD)
        start = text.find(word, end)
        if word and box and start >= 0:
            left, top, right, bottom = (edge * points for edge in box)
            span = start, start + len(word)
            begins_line = "\n" in text[end:start]
            layout.add_word(span, (left, top, right, bottom), begins_line=begins_line)
            end = span[1]
    return layout


def _rendered(page: Image, number: int, max_edge_pixels: int) -> PageText:
    points = points_of_pixel(page)
    width, height = page.width * points, page.height * points
    grays = [gray for gray, pixels in enumerate(page.histogram()) if pixels]
    if grays[-1] - grays[0] < _FAINTEST_INK:
        return PageText(number=number, text="", width=width, height=height)
    page.thumbnail((max_edge_pixels, max_edge_pixels))
    stream = io.BytesIO()
    page.save(stream, "JPEG", quality=_JPEG_QUALITY)
    picture = Picture(number=number, data=stream.getvalue(), width=page.width, height=page.height)
    return PageText(number=number, text="", width=width, height=height, picture=picture)


def density_of(page: Image) -> int | None:
    """Return the dots per inch of a picture; `None` if they are missing or implausible."""
    density = int(page.info.get(pdf.DOTS_PER_INCH, (0, 0))[0])
    return density if _LEAST_DENSITY <= density <= _GREATEST_DENSITY else None


def points_of_pixel(page: Image) -> float:
    """Return the size of a pixel in points; 1 if the density is unknown."""
    density = density_of(page)
    return pdf.POINTS_PER_INCH / density if density else 1.0


def _frame(picture: Image, index: int) -> Image | None:
    from PIL import ImageOps  # noqa: PLC0415 - of an extra

    try:
        picture.seek(index)
        picture.draft("L", _bounded(picture.size, pdf.MAX_SCAN_PIXELS))
        frame = _on_paper(ImageOps.exif_transpose(picture), "L")
    except _DAMAGES:
        return None
    if frame.width * frame.height > pdf.MAX_SCAN_PIXELS:
        frame.thumbnail(_bounded(frame.size, pdf.MAX_SCAN_PIXELS))
        frame.info.pop(pdf.DOTS_PER_INCH, None)
    return frame


def _on_paper(picture: Image, mode: str) -> Image:
    from PIL import Image  # noqa: PLC0415 - of an extra

    if picture.has_transparency_data:
        paper = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(paper, picture.convert("RGBA")).convert(mode)
    return picture.convert(mode)


def _bounded(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    width, height = size
    factor = min(1.0, (max_pixels / (width * height)) ** 0.5)
    return max(1, int(width * factor)), max(1, int(height * factor))


def _read(data: bytes, _max_characters: int) -> Extracted:
    raise failures.needs_ocr(f"is an image ({kind_of(data)}).")


FORMAT = Format(
    "",
    of_bytes(_read),
    extensions=(".png", ".jpg", ".jpeg", ".tif", ".tiff"),
    matches=lambda data, _: bool(kind_of(data)),
    scan=of_picture,
)
