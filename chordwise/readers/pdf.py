"""Reader for the text layer of a PDF, page by page, limited to the area of the page."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import pypdfium2
from pypdfium2 import PdfMatrix, raw

from chordwise.domain.places import Box, Layout, union
from chordwise.errors import ReadError
from chordwise.readers import failures
from chordwise.readers.reader_output import (
    CharacterAllowance,
    Extracted,
    PageText,
    RenderedPage,
    of_pages,
)

# The mark of PDFium for a hyphen at a line end (the word is complete without it), and glyphs
# without text.
_CONTROLS = re.compile("[\0-\x08\x0b\x0e-\x1f\ufffe]")
# Words, and single signs and ideographs: the possible beginnings and ends of a quote.
_IDEOGRAPHS = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W{_IDEOGRAPHS}]+|[^\w\s]")
# How many characters may be skipped to find the next one; some are not in the text of the page.
_MAX_SKIPPED = 2_000
_HEADER, _HEADER_BYTES = b"%PDF-", 1_024
# PDF readers search for the end in the last kilobyte, as Acrobat does.
_END, _END_BYTES = b"%%EOF", 1_024


def read(data: bytes, max_characters: int) -> Extracted:
    """Return the text of the pages, separated by blank lines; text off the page is left out.

    Raises:
        ReadError: The file is encrypted, damaged, a scan, empty, or longer than the limit.
    """
    document = opened(data)
    pages = _Pages(document, max_characters)
    if not pages.has_text:
        raise pages.failure()
    text, places = of_pages(pages.texts)
    return Extracted(
        text=text,
        places=places,
        media_type="application/pdf",
        title=document.get_metadata_value("Title"),
        pages=len(document),
        pages_unread=pages.unread,
        pages_scanned=pages.scanned,
        invisible_characters=sum(each.characters for each in pages.unseen),
        unseen=tuple(passage for each in pages.unseen for passage in each.passages),
    )


POINTS_PER_INCH = 72
MAX_PICTURE_PIXELS = 2_000_000
"""The limit for a rendered page, about an A4 page at 140 dots per inch."""
_PICTURE_DENSITY = 144
_MAX_SIDE = 8_000


def picture_of(data: bytes, number: int) -> RenderedPage:
    """Render a page; pages count from 1.

    Raises:
        ReadError: The file is encrypted or damaged, or has no such page.
    """
    document = opened(data)
    try:
        document.init_forms()
        page = document[number - 1]
        width, height = page.get_size()
        bitmap = page.render(scale=_scale_within(width, height), rev_byteorder=True)
    except (pypdfium2.PdfiumError, IndexError) as error:
        raise failures.malformed(f"has no page {number} that can be shown.") from error
    row, used = bitmap.stride, bitmap.width * bitmap.n_channels
    content = bytes(bitmap.buffer)
    pixels = b"".join(content[y * row : y * row + used] for y in range(bitmap.height))
    return RenderedPage(width=bitmap.width, height=bitmap.height, pixels=pixels)


def _scale_within(width: float, height: float) -> float:
    """Return the pixels per point that keep the picture of a page within its limits."""
    area, side = max(1.0, width * height), max(1.0, width, height)
    by_area, by_side = (MAX_PICTURE_PIXELS / area) ** 0.5, _MAX_SIDE / side
    return float(min(_PICTURE_DENSITY / POINTS_PER_INCH, by_area, by_side))


def text_of(page: pypdfium2.PdfPage, text_page: pypdfium2.PdfTextPage, number: int) -> PageText:
    """Return the text on a page, with the boxes of its words."""
    written = _CONTROLS.sub("", text_page.get_text_bounded())
    text = written.replace("\r\n", "\n").strip("\r\n")
    words = _Words(page, text_page)
    end = 0
    for word in _WORD.finditer(text):
        words.add(word.start(), word[0], begins_line="\n" in text[end : word.start()])
        end = word.end()
    width, height = page.get_size()
    layout = words.layout.packed()
    return PageText(number=number, text=text, width=width, height=height, layout=layout)


class _Words:
    """Locates the words of a page, one after another, among the boxes of its characters."""

    def __init__(self, page: pypdfium2.PdfPage, text_page: pypdfium2.PdfTextPage) -> None:
        self.layout = Layout()
        self._outer = page.get_bbox()
        self._turned = _TURNS[page.get_rotation()]
        self._characters, self._boxes = _characters(text_page, self._outer)
        self._next = 0
        self._line: Box | None = None
        self._last: Box | None = None

    def add(self, start: int, word: str, *, begins_line: bool) -> None:
        """Add a word, in pieces if it is hyphenated at the end of a line."""
        if begins_line:
            self._line = None
        end = self._next + len(word)
        boxes = self._boxes[self._next : end]
        if self._characters.startswith(word, self._next) and _is_in_line(boxes):
            self._next = end
            self._add_piece((start, start + len(word)), boxes)
            return
        first, piece = start, list[Box]()
        for index, char in enumerate(word, start):
            found = self._next_box(char)
            if piece and found and not _is_in_line([piece[-1], found]):
                self._add_piece((first, index), piece)
                first, piece = index, []
            piece += [found] if found else []
        self._add_piece((first, start + len(word)), piece)

    def _next_box(self, char: str) -> Box | None:
        place = self._characters.find(char, self._next, self._next + _MAX_SKIPPED)
        if place < 0:
            return None
        self._next = place + 1
        return self._boxes[place]

    def _add_piece(self, span: tuple[int, int], boxes: Sequence[Box]) -> None:
        if not boxes:
            return
        lefts, bottoms, rights, tops = zip(*boxes, strict=True)
        whole = min(lefts), min(bottoms), max(rights), max(tops)
        box, last = (self._turned(self._outer, each) for each in (whole, boxes[-1]))
        if self._line is None or self._jumps(self._line, box):
            self._line = None
        self.layout.add_word(span, box, begins_line=self._line is None)
        self._line = box if self._line is None else union(self._line, box)
        self._last = last

    def _jumps(self, line: Box, box: Box) -> bool:
        """Return whether a word is on another line or in another column than the last character."""
        last = self._last
        if last is None or _overlap(line, box, 1) or _overlap(last, box, 0):
            return False
        gap = max(line[1] - box[3], box[1] - line[3])
        return box[0] < last[0] or gap > line[3] - line[1]


def _is_in_line(boxes: Sequence[Box]) -> bool:
    """Return whether one horizontal or vertical line crosses all boxes."""
    if not boxes:
        return False
    lefts, bottoms, rights, tops = zip(*boxes, strict=True)
    return bool(max(bottoms) < min(tops) or max(lefts) < min(rights))


def _overlap(one: Box, two: Box, axis: int) -> bool:
    return one[axis] < two[axis + 2] and two[axis] < one[axis + 2]


def _characters(text_page: pypdfium2.PdfTextPage, outer: Box) -> tuple[str, list[Box]]:
    """Return the non-blank characters on a page, and the box of each on its axes."""
    edges = left, right, bottom, top = tuple(ctypes.c_double() for _ in range(4))
    west, south, east, north = outer
    characters: list[str] = []
    boxes: list[Box] = []
    text, unicode_of, box_of = text_page.raw, raw.FPDFText_GetUnicode, raw.FPDFText_GetCharBox
    for index in range(raw.FPDFText_CountChars(text)):
        code = unicode_of(text, index)
        if code in _BLANKS or code > sys.maxunicode or not box_of(text, index, *edges):
            continue
        box = x0, y0, x1, y1 = left.value, bottom.value, right.value, top.value
        if x0 < east and west < x1 and y0 < north and south < y1:
            characters.append(chr(code))
            boxes.append(box)
    return "".join(characters), boxes


# From the axes of a page (left, bottom, right, top) to its display: left, top, right, bottom.
_TURNS: Mapping[int, Callable[[Box, Box], Box]] = {
    0: lambda o, b: (b[0] - o[0], o[3] - b[3], b[2] - o[0], o[3] - b[1]),
    90: lambda o, b: (b[1] - o[1], b[0] - o[0], b[3] - o[1], b[2] - o[0]),
    180: lambda o, b: (o[2] - b[2], b[1] - o[1], o[2] - b[0], b[3] - o[1]),
    270: lambda o, b: (o[3] - b[3], o[2] - b[2], o[3] - b[1], o[2] - b[0]),
}


def opened(data: bytes) -> pypdfium2.PdfDocument:
    """Open a document.

    Raises:
        ReadError: The file is encrypted, truncated or damaged.
    """
    is_cut_off = _HEADER in data[:_HEADER_BYTES] and _END not in data[-_END_BYTES:]
    return _open(_from_header(data), is_cut_off=is_cut_off)


def _from_header(data: bytes) -> bytes:
    """Remove bytes that a mail program or a server prepended; supply a missing header."""
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
    """The text of all pages, with other findings about them."""

    def __init__(self, document: pypdfium2.PdfDocument, max_characters: int) -> None:
        self.texts: list[PageText] = []
        self.unread = 0
        self.scanned = 0
        self.unseen: list[Unseen] = []
        self.has_marks = False
        self._spend = CharacterAllowance(max_characters)
        for index in range(len(document)):
            self._add(document, index)

    @property
    def has_text(self) -> bool:
        """Whether any page contains more than white space."""
        return any(each.text.strip() for each in self.texts)

    def failure(self) -> ReadError:
        """Return why there is no text: damage, pictures only, or no content at all."""
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
        found = text_of(page, text_page, index + 1)
        text = found.text
        self.has_marks = self.has_marks or raw.FPDFPage_CountObjects(page) > 0
        self.scanned += not text.strip() and _is_picture(page)
        if text:
            self.unseen.append(unseen(page, text_page))
        self.texts.append(found)
        page.close()
        self._spend(len(text))


def _is_picture(page: pypdfium2.PdfPage) -> bool:
    """Return whether images cover most of the page, as on a scanned one."""
    width, height = page.get_size()
    covered = 0.0
    try:
        for image in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE]):
            left, bottom, right, top = image.get_bounds()
            covered += (right - left) * (top - bottom)
    except pypdfium2.PdfiumError:
        return False
    return bool(covered > width * height / 2)


# The lowest level that is indistinguishable from white paper.
_WHITE = 240
_BLACK = (0, 0, 0, 255)
_MIN_POINTS = 0.5
# The width of a line that can be the background of a word.
_THICK_POINTS = 4.0
_MAX_LEVELS = 8
# The maximum size for rendering a text in more than one color.
_MAX_PIXELS = 200
# The check is skipped for more painted objects, as on a map, since it would take long.
_MAX_GROUNDS = 2_000
_UNPAINTED = (raw.FPDF_TEXTRENDERMODE_INVISIBLE, raw.FPDF_TEXTRENDERMODE_CLIP)
_FILLED = (raw.FPDF_TEXTRENDERMODE_FILL, raw.FPDF_TEXTRENDERMODE_FILL_CLIP)
_BLANKS = frozenset(map(ord, "\t\n\r \xa0"))
_PICTURES = (raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_SHADING)


@dataclass(frozen=True, slots=True)
class Unseen:
    """The number of invisible characters in the text of a page, and their passages."""

    characters: int = 0
    passages: tuple[str, ...] = ()


def unseen(page: pypdfium2.PdfPage, text: pypdfium2.PdfTextPage) -> Unseen:
    """Return the invisible text of a page; white space does not count.

    Text is invisible if it is unpainted, white, or smaller than half a point. Unpainted text over a
    picture is the recognized text of a scan, and white text over a painted background is readable:
    neither counts.
    """
    objects = list(_objects(page))
    texts = (each for each in objects if each.kind == raw.FPDF_PAGEOBJ_TEXT)
    suspects = [(each, reason) for each in texts if (reason := _suspicion(each))]
    unreadable = _unreadable(page, suspects, objects) if suspects else set()
    return _unseen(page, text, unreadable) if unreadable else Unseen()


class _Reason(Enum):
    UNPAINTED = auto()
    WHITE = auto()
    SMALL = auto()


@dataclass(frozen=True, slots=True)
class _Object:
    """An object on a page; `matrix` is the transformation of its form, if it is in one."""

    found: raw.FPDF_PAGEOBJECT
    kind: int
    matrix: PdfMatrix | None

    @property
    def address(self) -> int:
        """Return the identity of the object on its page."""
        return ctypes.cast(self.found, ctypes.c_void_p).value or 0

    @property
    def bounds(self) -> Box:
        """Return the box on the page, or in its form: left, bottom, right, top."""
        left, bottom, right, top = (ctypes.c_float() for _ in range(4))
        raw.FPDFPageObj_GetBounds(self.found, left, bottom, right, top)
        return left.value, bottom.value, right.value, top.value

    @property
    def box(self) -> Box:
        """Return the box on the page."""
        box: Box = self.matrix.on_rect(*self.bounds) if self.matrix else self.bounds
        return box

    @property
    def fill(self) -> tuple[int, int, int, int]:
        """Return red, green, blue and opacity, 0 to 255; black if none is set."""
        red, green, blue, alpha = (ctypes.c_uint() for _ in range(4))
        if not raw.FPDFPageObj_GetFillColor(self.found, red, green, blue, alpha):
            return _BLACK
        return red.value, green.value, blue.value, alpha.value

    @property
    def points(self) -> float:
        """Return the font size of the text on the page, in points."""
        size, own = ctypes.c_float(), raw.FS_MATRIX()
        raw.FPDFTextObj_GetFontSize(self.found, size)
        raw.FPDFPageObj_GetMatrix(self.found, own)
        outer = _scale(self.matrix) if self.matrix else 1.0
        return float(abs(size.value) * _scale(own) * outer)

    @property
    def is_ground(self) -> bool:
        """Whether the object is a background: a non-white area, or a thick line."""
        mode, is_stroked, width = ctypes.c_int(), ctypes.c_int(), ctypes.c_float()
        raw.FPDFPath_GetDrawMode(self.found, mode, is_stroked)
        raw.FPDFPageObj_GetStrokeWidth(self.found, width)
        red, green, blue, alpha = self.fill
        is_filled = mode.value != raw.FPDF_FILLMODE_NONE and alpha > 0
        is_line = bool(is_stroked.value) and width.value >= _THICK_POINTS
        return is_line or (is_filled and min(red, green, blue) < _WHITE)


def _objects(page: pypdfium2.PdfPage) -> Iterator[_Object]:
    for index in range(raw.FPDFPage_CountObjects(page)):
        yield from _opened(raw.FPDFPage_GetObject(page, index), None, _MAX_LEVELS)


def _opened(found: raw.FPDF_PAGEOBJECT, matrix: PdfMatrix | None, levels: int) -> Iterator[_Object]:
    kind = raw.FPDFPageObj_GetType(found)
    if kind != raw.FPDF_PAGEOBJ_FORM:
        yield _Object(found, kind, matrix)
        return
    own = raw.FS_MATRIX()
    raw.FPDFPageObj_GetMatrix(found, own)
    inner = PdfMatrix.from_raw(own)
    inner = inner.multiply(matrix) if matrix else inner
    for index in range(raw.FPDFFormObj_CountObjects(found) if levels else 0):
        yield from _opened(raw.FPDFFormObj_GetObject(found, index), inner, levels - 1)


def _suspicion(text: _Object) -> _Reason | None:
    if text.points < _MIN_POINTS:
        return _Reason.SMALL
    mode = raw.FPDFTextObj_GetTextRenderMode(text.found)
    red, green, blue, alpha = text.fill
    if mode in _UNPAINTED or (mode in _FILLED and alpha == 0):
        return _Reason.UNPAINTED
    is_white = mode in _FILLED and min(red, green, blue) >= _WHITE
    return _Reason.WHITE if is_white else None


def _unreadable(
    page: pypdfium2.PdfPage,
    suspects: Sequence[tuple[_Object, _Reason]],
    objects: Sequence[_Object],
) -> set[int]:
    """Return the addresses of texts that neither the objects below nor a pattern make readable."""
    pictures = [each.box for each in objects if each.kind in _PICTURES]
    grounds = pictures
    if any(reason is _Reason.WHITE for _, reason in suspects):
        paths = (each for each in objects if each.kind == raw.FPDF_PAGEOBJ_PATH)
        grounds = [*pictures, *(each.box for each in paths if each.is_ground)]
    below = {_Reason.UNPAINTED: pictures, _Reason.WHITE: grounds, _Reason.SMALL: ()}
    return {
        text.address
        for text, reason in suspects
        if len(below[reason]) <= _MAX_GROUNDS
        and not _is_on_background(text.box, below[reason])
        and not (reason is _Reason.WHITE and _is_colorful(page, text))
    }


def _is_on_background(box: Box, grounds: Sequence[Box]) -> bool:
    """Return whether the center of a box is on a background."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return any(left <= x <= right and bottom <= y <= top for left, bottom, right, top in grounds)


def _is_colorful(page: pypdfium2.PdfPage, text: _Object) -> bool:
    """Return whether a nominally white text is painted with a gradient or another pattern."""
    left, bottom, right, top = text.bounds
    scale = min(1.0, _MAX_PIXELS / max(1.0, right - left, top - bottom))
    rendered = raw.FPDFTextObj_GetRenderedBitmap(page.pdf, page, text.found, scale)
    if not rendered:
        return False
    length = raw.FPDFBitmap_GetStride(rendered) * raw.FPDFBitmap_GetHeight(rendered)
    pixels = ctypes.string_at(raw.FPDFBitmap_GetBuffer(rendered), length)  # blue, green, red, alpha
    raw.FPDFBitmap_Destroy(rendered)
    alphas = pixels[3::4]
    return any(
        alpha and value < _WHITE
        for channel in range(3)
        for value, alpha in zip(pixels[channel::4], alphas, strict=True)
    )


def _unseen(page: pypdfium2.PdfPage, text: pypdfium2.PdfTextPage, unreadable: set[int]) -> Unseen:
    """Return the non-blank characters of these texts that are on the page."""
    left, bottom, right, top = page.get_bbox()
    x, y = ctypes.c_double(), ctypes.c_double()
    characters, runs = 0, [[0, 0]]
    for index in range(raw.FPDFText_CountChars(text)):
        if raw.FPDFText_GetUnicode(text, index) in _BLANKS:
            continue
        found = raw.FPDFText_GetTextObject(text, index)
        if not found or ctypes.cast(found, ctypes.c_void_p).value not in unreadable:
            if runs[-1][1]:
                runs.append([0, 0])
            continue
        raw.FPDFText_GetCharOrigin(text, index, x, y)
        if left <= x.value <= right and bottom <= y.value <= top:
            characters += 1
            runs[-1] = [runs[-1][0] if runs[-1][1] else index, index + 1]
    spans = [(start, end) for start, end in runs if end]
    found_texts = (text.get_text_range(start, end - start) for start, end in spans)
    return Unseen(characters, tuple(_CONTROLS.sub("", each) for each in found_texts))


def _scale(matrix: PdfMatrix | raw.FS_MATRIX) -> float:
    return float(abs(matrix.a * matrix.d - matrix.b * matrix.c) ** 0.5)
