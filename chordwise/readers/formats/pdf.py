"""Reader for the text layer of a PDF, page by page, and for what of it a page does not show."""

from __future__ import annotations

import ctypes
import math
import re
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial, reduce
from itertools import chain, compress, product
from typing import TYPE_CHECKING

import pypdfium2
from pypdfium2 import PdfMatrix, raw

from chordwise.domain.places import Box, Layout, union
from chordwise.readers import failures
from chordwise.readers.formats import Format, Scan, of_bytes
from chordwise.readers.limits import CharacterAllowance
from chordwise.readers.reader_output import (
    Extracted,
    PageText,
    RenderedPage,
    leaves_out_unseen,
    of_pages,
)

if TYPE_CHECKING:
    from PIL.Image import Image

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
    """Return the text of the pages, separated by blank lines."""
    document, spend = opened(data), CharacterAllowance(max_characters)
    pages: list[PageText] = []
    unseen: list[Unseen] = []
    scanned, has_marks, has_more, fields = 0, False, False, 0
    if document.get_formtype():
        document.init_forms()
    for index in range(len(document)):
        try:
            page = document[index]
        except pypdfium2.PdfiumError:
            continue
        content, hidden = text_of(page, page.get_textpage(), index + 1)
        has_marks = has_marks or raw.FPDFPage_CountObjects(page) > 0
        scanned += not content.text.strip() and _is_picture(page)
        pages.append(content)
        unseen.append(hidden)
        has_more = has_more or _shows_more(page)
        fields += _fields(page, document.formenv) if document.formenv else 0
        page.close()
        spend(len(content.text))
    unread = len(document) - len(pages)
    if not any(page.text.strip() for page in pages):
        if unread:
            raise failures.malformed("is a damaged PDF, no page of which can be read.")
        raise failures.needs_ocr() if has_marks else failures.empty()
    text, places = of_pages(pages)
    return Extracted(
        text=text,
        places=places,
        media_type="application/pdf",
        title=document.get_metadata_value("Title"),
        pages=len(document),
        pages_unread=unread,
        pages_scanned=scanned,
        invisible_characters=sum(len(hidden.characters) for hidden in unseen),
        is_covered=any(hidden.is_covered for hidden in unseen),
        unseen=tuple(passage for hidden in unseen for passage in hidden.passages),
        unseen_at=tuple(
            place.start_char + start
            for place, hidden in zip(places, unseen, strict=True)
            for start in hidden.starts
        ),
        is_partial=has_more or raw.FPDFDoc_GetAttachmentCount(document) > 0,
        fields_unread=fields,
    )


def _shows_more(page: pypdfium2.PdfPage) -> bool:
    """Return whether a page shows more than its text: a picture, a drawing or an annotation."""
    handles = (raw.FPDFPage_GetObject(page, at) for at in range(raw.FPDFPage_CountObjects(page)))
    opened_all = (_opened(handle, None, _ANYWHERE, _MAX_LEVELS) for handle in handles)
    objects = chain.from_iterable(opened_all)
    return any(item.kind != raw.FPDF_PAGEOBJ_TEXT for item in objects) or any(
        raw.FPDFAnnot_GetSubtype(annotation) not in (raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP)
        for annotation in _annotations(page)
    )


_FILLED_IN = (
    *(raw.FPDF_FORMFIELD_TEXTFIELD, raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON),
    *(raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX),
)


def _fields(page: pypdfium2.PdfPage, form: pypdfium2.PdfFormEnv) -> int:
    """Return the number of fields that a person can fill in, each radio button as one."""
    kinds = (raw.FPDFAnnot_GetFormFieldType(form, annotation) for annotation in _annotations(page))
    return sum(kind in _FILLED_IN for kind in kinds)


def _annotations(page: pypdfium2.PdfPage) -> Iterator[raw.FPDF_ANNOTATION]:
    for index in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, index)
        try:
            yield annotation
        finally:
            raw.FPDFPage_CloseAnnot(annotation)


POINTS_PER_INCH = 72
MAX_PICTURE_PIXELS = 2_000_000
"""The limit for a rendered page, about an A4 page at 140 dots per inch."""
_PICTURE_DENSITY = 144
DOTS_PER_INCH = "dpi"
"""The key of the density in the `info` of a picture, a pair of numbers."""
_SCAN_DENSITY = 300
MAX_SCAN_PIXELS = 18_000_000
"""The limit for a page of a scan, an A3 page; larger ones are rendered at a lower density."""
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
    area, side = max(1.0, width * height), max(1.0, width, height)
    by_area, by_side = (MAX_PICTURE_PIXELS / area) ** 0.5, _MAX_SIDE / side
    return float(min(_PICTURE_DENSITY / POINTS_PER_INCH, by_area, by_side))


def text_of(
    page: pypdfium2.PdfPage, text_page: pypdfium2.PdfTextPage, number: int
) -> tuple[PageText, Unseen]:
    """Return the text on a page, with the boxes of its words, and what of it is invisible.

    Invisible text is left out if `leaves_out_unseen` says so, or if all text is outside the page.
    """
    words = _Words(page, text_page)
    written = _CONTROLS.sub("", text_page.get_text_bounded(*words.extent))
    text = written.replace("\r\n", "\n").strip("\r\n")
    hidden = words.unseen(text)
    if leaves_out_unseen.get() or words.are_outside:
        text, hidden = words.without(text, hidden)
    end = 0
    for word in _WORD.finditer(text):
        words.add(word.start(), word[0], begins_line="\n" in text[end : word.start()])
        end = word.end()
    width, height = page.get_size()
    layout = words.layout.packed()
    return PageText(number=number, text=text, width=width, height=height, layout=layout), hidden


@dataclass(frozen=True, slots=True)
class Unseen:
    """The indexes of invisible characters of a page, and their passages in its text.

    `is_covered` is whether something is drawn over one of them, or below it in its color.
    """

    characters: AbstractSet[int] = frozenset()
    is_covered: bool = False
    passages: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()


class _Words:
    """Locates the words of a page, one after another, among the boxes of its characters."""

    def __init__(self, page: pypdfium2.PdfPage, text_page: pypdfium2.PdfTextPage) -> None:
        self.layout = Layout()
        self._page, self._text_page = page, text_page
        self._outer = page.get_bbox()
        self._turned = _TURNS[page.get_rotation()]
        located = _characters(text_page, self._outer)
        self._characters, self._boxes, self._indexes, self._outside = located
        self.extent = reduce(union, self._outside.values(), self._outer)
        self.are_outside = len(self._outside) == len(self._indexes)
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
            place = self._characters.find(char, self._next, self._next + _MAX_SKIPPED)
            if place < 0:
                continue
            self._next, box = place + 1, self._boxes[place]
            if piece and not _is_in_line([piece[-1], box]):
                self._add_piece((first, index), piece)
                first, piece = index, []
            piece.append(box)
        self._add_piece((first, start + len(word)), piece)

    def unseen(self, text: str) -> Unseen:
        inside = self._indexes
        if self._outside:
            inside = [index for index in inside if index not in self._outside]
        hidden, is_covered = _unseen(self._page, self._text_page, inside)
        hidden |= self._outside.keys()
        spans: list[tuple[int, int]] = []
        following = 0
        for offset, char in enumerate(text) if hidden else ():
            place = self._characters.find(char, following, following + _MAX_SKIPPED)
            if char.isspace() or place < 0:
                continue
            following = place + 1
            if self._indexes[place] in hidden:
                is_next = spans and not text[spans[-1][1] : offset].strip()
                spans.append((spans.pop()[0] if is_next else offset, offset + 1))
        passages = tuple(text[start:end] for start, end in spans)
        return Unseen(hidden, is_covered, passages, tuple(start for start, _ in spans))

    def without(self, text: str, hidden: Unseen) -> tuple[str, Unseen]:
        """Return the text without hidden passages, in which no words are located."""
        for start, passage in zip(hidden.starts[::-1], hidden.passages[::-1], strict=True):
            text = text[:start] + text[start + len(passage) :]
        is_kept = [index not in hidden.characters for index in self._indexes]
        self._characters = "".join(compress(self._characters, is_kept))
        self._boxes = list(compress(self._boxes, is_kept))
        return text, replace(hidden, starts=())

    def _add_piece(self, span: tuple[int, int], boxes: Sequence[Box]) -> None:
        if not boxes:
            return
        lefts, bottoms, rights, tops = zip(*boxes, strict=True)
        whole = min(lefts), min(bottoms), max(rights), max(tops)
        if self._outside:
            whole = _common(whole, self._outer)
            if whole[0] >= whole[2] or whole[1] >= whole[3]:
                return
        box, last = (self._turned(self._outer, corners) for corners in (whole, boxes[-1]))
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
    if not boxes:
        return False
    lefts, bottoms, rights, tops = zip(*boxes, strict=True)
    return bool(max(bottoms) < min(tops) or max(lefts) < min(rights))


def _characters(
    text_page: pypdfium2.PdfTextPage, outer: Box
) -> tuple[str, list[Box], list[int], dict[int, Box]]:
    """Return the characters, their boxes and indexes, and those outside the page by index."""
    edges = left, right, bottom, top = tuple(ctypes.c_double() for _ in range(4))
    west, south, east, north = outer
    characters, boxes, indexes = list[str](), list[Box](), list[int]()
    outside: dict[int, Box] = {}
    text, unicode_of, box_of = text_page.raw, raw.FPDFText_GetUnicode, raw.FPDFText_GetCharBox
    for index in range(raw.FPDFText_CountChars(text)):
        code = unicode_of(text, index)
        if code in _BLANKS or code > sys.maxunicode or not box_of(text, index, *edges):
            continue
        box = x0, y0, x1, y1 = left.value, bottom.value, right.value, top.value
        if not (x0 < east and west < x1 and y0 < north and south < y1):
            if x0 >= x1 or y0 >= y1:
                continue
            outside[index] = box
        characters.append(chr(code))
        boxes.append(box)
        indexes.append(index)
    return "".join(characters), boxes, indexes, outside


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
    position = data[:_HEADER_BYTES].find(_HEADER)
    data = data[position:] if position >= 0 else _HEADER + b"1.4\n" + data
    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            raise failures.encrypted() from error
        if is_cut_off:
            raise failures.truncated("a PDF") from error
        raise failures.malformed("is a damaged PDF.") from error


def _overlap(one: Box, two: Box, axis: int) -> bool:
    return one[axis] < two[axis + 2] and two[axis] < one[axis + 2]


def _common(one: Box, two: Box) -> Box:
    return max(one[0], two[0]), max(one[1], two[1]), min(one[2], two[2]), min(one[3], two[3])


def _is_picture(page: pypdfium2.PdfPage) -> bool:
    width, height = page.get_size()
    covered = 0.0
    try:
        for image in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE]):
            left, bottom, right, top = image.get_bounds()
            covered += (right - left) * (top - bottom)
    except pypdfium2.PdfiumError:
        return False
    return bool(covered > width * height / 2)


# The lowest level that is indistinguishable from white paper, and the step between levels.
_WHITE = 240
_STEPS = bytes(level // 16 for level in range(256))
_MIN_POINTS = 0.5
# The width of a line that can cover a word.
_THICK_POINTS = 4.0
_MAX_LEVELS = 40  # As in PDFium, which reads no text of deeper forms.
# The part of a character at each of its edges that may be visible.
_INSET = 0.15
_CELLS, _BOXES_IN_CELL = 16, 200
_ANYWHERE: Box = (-math.inf, -math.inf, math.inf, math.inf)
_NOWHERE: Box = (math.inf, math.inf, -math.inf, -math.inf)
_CORNERS, _UPRIGHT = (4, 5), 0.999
_UNPAINTED = (raw.FPDF_TEXTRENDERMODE_INVISIBLE, raw.FPDF_TEXTRENDERMODE_CLIP)
_FILLED = (raw.FPDF_TEXTRENDERMODE_FILL, raw.FPDF_TEXTRENDERMODE_FILL_CLIP)
_BLANKS = frozenset(map(ord, "\t\n\r \xa0"))
_PICTURES = (raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_SHADING)
_NOTES = (raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP, raw.FPDF_ANNOT_TEXT)


def _unseen(
    page: pypdfium2.PdfPage, text: pypdfium2.PdfTextPage, indexes: Sequence[int]
) -> tuple[AbstractSet[int], bool]:
    """Return which characters are invisible, and whether something covers one of them.

    Text is invisible if it is unpainted, smaller than half a point, or has the color of its ground
    or is clipped, transparent or below something and the page looks the same without it. Unpainted
    text over a picture is the recognized text of a scan and does not count, nor does text below it.
    """
    texts = {_address(text.handle): (text, reason) for text, reason in _suspects(page)}
    if not texts:
        return frozenset(), False
    owners = (texts.get(_address(raw.FPDFText_GetTextObject(text, index))) for index in indexes)
    suspects = [(index, *owner) for index, owner in zip(indexes, owners, strict=True) if owner]
    compared = [suspect for suspect, why in texts.values() if suspects and why in _COMPARED]
    comparison = _Comparison(page, compared)
    hidden = {suspect[0]: suspect[-1] for suspect in suspects if comparison.hides(text, *suspect)}
    covered = {index for index, why in hidden.items() if why in _COVERED}
    # Boxes for check marks are often drawn over the line of a form.
    is_covered = any(chr(raw.FPDFText_GetUnicode(text, index)).isalnum() for index in covered)
    return hidden.keys() if is_covered else hidden.keys() - covered, is_covered


class _Reason(Enum):
    UNPAINTED = auto()
    WHITE = auto()
    SMALL = auto()
    COVERED = auto()
    MASKED = auto()
    ALIKE = auto()


_COVERED = (_Reason.COVERED, _Reason.ALIKE)
_COMPARED = (_Reason.WHITE, _Reason.MASKED, *_COVERED)


@dataclass(frozen=True, slots=True)
class _Object:
    """An object on a page; `matrix` transforms its form, and `window` is what that form shows."""

    handle: raw.FPDF_PAGEOBJECT
    kind: int
    matrix: PdfMatrix | None
    window: Box

    @property
    def box(self) -> Box:
        """Return the box on the page: left, bottom, right, top."""
        left, bottom, right, top = (ctypes.c_float() for _ in range(4))
        raw.FPDFPageObj_GetBounds(self.handle, left, bottom, right, top)
        inner = left.value, bottom.value, right.value, top.value
        box: Box = self.matrix.on_rect(*inner) if self.matrix else inner
        return box

    @property
    def fill(self) -> tuple[int, int, int, int]:
        """Return red, green, blue and opacity, 0 to 255; black if none is set."""
        red, green, blue, alpha = (ctypes.c_uint() for _ in range(4))
        if not raw.FPDFPageObj_GetFillColor(self.handle, red, green, blue, alpha):
            return (0, 0, 0, 255)
        return red.value, green.value, blue.value, alpha.value

    @property
    def shade(self) -> bytes:
        """Return the fill in coarse steps, in which similar colors are mostly equal."""
        return bytes(self.fill).translate(_STEPS)

    @property
    def points(self) -> float:
        size, raw_matrix = ctypes.c_float(), raw.FS_MATRIX()
        raw.FPDFTextObj_GetFontSize(self.handle, size)
        raw.FPDFPageObj_GetMatrix(self.handle, raw_matrix)
        outer = _scale(self.matrix) if self.matrix else 1.0
        return float(abs(size.value) * _scale(raw_matrix) * outer)

    @property
    def inner_window(self) -> Box:
        """Return a box on the page in which neither clipping nor transparency hides anything."""
        clip = raw.FPDFPageObj_GetClipPath(self.handle)
        # The number is negative without clipping, and 0 if only text clips.
        paths = raw.FPDFClipPath_CountPaths(clip)
        if paths == 0 or paths > _MAX_LEVELS or raw.FPDFPageObj_HasTransparency(self.handle):
            return _NOWHERE
        boxes = [_rectangle(clip, number, self.matrix) for number in range(paths)]
        return reduce(_common, boxes, self.window)

    def may_be_masked(self, box: Box) -> bool:
        """Return whether more than the edges of its box may be hidden."""
        if (window := self.inner_window) is _ANYWHERE:
            return False
        left, bottom, right, top = box
        edge = _INSET * min(right - left, top - bottom)
        core = left + edge, bottom + edge, right - edge, top - edge
        return _common(core, window) != core

    @property
    def is_cover(self) -> bool:
        if self.kind != raw.FPDF_PAGEOBJ_PATH:
            return self.kind in _PICTURES
        mode, is_stroked, width = ctypes.c_int(), ctypes.c_int(), ctypes.c_float()
        raw.FPDFPath_GetDrawMode(self.handle, mode, is_stroked)
        raw.FPDFPageObj_GetStrokeWidth(self.handle, width)
        is_line = bool(is_stroked.value) and width.value >= _THICK_POINTS
        return is_line or (mode.value != raw.FPDF_FILLMODE_NONE and self.fill[-1] > 0)


def _rectangle(clip: raw.FPDF_CLIPPATH, path: int, matrix: PdfMatrix | None) -> Box:
    """Return the box on the page of a clipping path, nowhere if it is no upright rectangle."""
    segments = raw.FPDFClipPath_CountPathSegments(clip, path)
    if segments not in _CORNERS:
        return _NOWHERE
    x, y, corners = ctypes.c_float(), ctypes.c_float(), list[tuple[float, float]]()
    for number in range(segments):
        segment = raw.FPDFClipPath_GetPathSegment(clip, path, number)
        raw.FPDFPathSegment_GetPoint(segment, x, y)
        corners.append(matrix.on_point(x.value, y.value) if matrix else (x.value, y.value))
        if number and raw.FPDFPathSegment_GetType(segment) != raw.FPDF_SEGMENT_LINETO:
            return _NOWHERE
    xs, ys = zip(*corners, strict=True)
    box = min(xs), min(ys), max(xs), max(ys)
    # The area by the diagonals is that of the box for nothing but the box itself.
    diagonals = (xs[2] - xs[0]) * (ys[3] - ys[1]) - (ys[2] - ys[0]) * (xs[3] - xs[1])
    is_upright = abs(diagonals) / 2 >= _UPRIGHT * (box[2] - box[0]) * (box[3] - box[1])
    return box if is_upright and corners[-1] in (corners[0], corners[3]) else _NOWHERE


def _opened(
    handle: raw.FPDF_PAGEOBJECT, matrix: PdfMatrix | None, window: Box, levels: int
) -> Iterator[_Object]:
    whole = _Object(handle, raw.FPDFPageObj_GetType(handle), matrix, window)
    if whole.kind != raw.FPDF_PAGEOBJ_FORM:
        yield whole
        return
    raw_matrix, window = raw.FS_MATRIX(), whole.inner_window
    raw.FPDFPageObj_GetMatrix(handle, raw_matrix)
    inner = PdfMatrix.from_raw(raw_matrix)
    inner = inner.multiply(matrix) if matrix else inner
    for index in range(raw.FPDFFormObj_CountObjects(handle) if levels else 0):
        yield from _opened(raw.FPDFFormObj_GetObject(handle, index), inner, window, levels - 1)


def _suspicion(text: _Object, mode: int) -> _Reason | None:
    if text.points < _MIN_POINTS:
        return _Reason.SMALL
    red, green, blue, alpha = text.fill
    if mode in _UNPAINTED or (mode in _FILLED and alpha == 0):
        return _Reason.UNPAINTED
    is_white = mode in _FILLED and min(red, green, blue) >= _WHITE
    return _Reason.WHITE if is_white else None


def _suspects(page: pypdfium2.PdfPage) -> Iterator[tuple[_Object, _Reason]]:
    handles = (raw.FPDFPage_GetObject(page, at) for at in range(raw.FPDFPage_CountObjects(page)))
    opened_all = (_opened(handle, None, _ANYWHERE, _MAX_LEVELS) for handle in handles)
    objects, is_scan, is_clipped = list(chain.from_iterable(opened_all)), _is_picture(page), False
    boxes = [(item.box, place) for place, item in enumerate(objects)]
    pictures = _Grid(page, (boxes[at] for at, item in enumerate(objects) if item.kind in _PICTURES))
    notes = ((box, len(objects)) for box in _boxes_of_annotations(page))
    drawn = (boxes[at] for at, item in enumerate(objects) if item.is_cover)
    covers = _Grid(page, chain(drawn, notes))
    for (box, place), text in zip(boxes, objects, strict=True):
        if text.kind != raw.FPDF_PAGEOBJ_TEXT:
            continue
        mode = raw.FPDFTextObj_GetTextRenderMode(text.handle)
        reason, below = _suspicion(text, mode), pictures.touching(box)
        if reason is None:
            grounds = covers.touching(box)
            is_below = any(at > place for at in grounds)
            is_alike = any(text.shade == objects[at].shade for at in grounds if at < place)
            is_masked = is_clipped or mode not in _FILLED or text.may_be_masked(box)
            reason = _Reason.MASKED if is_masked else _Reason.ALIKE if is_alike else None
            reason = _Reason.COVERED if is_below else reason
        is_recognized = below and (reason is _Reason.UNPAINTED or (is_scan and place < max(below)))
        if reason and not is_recognized:
            yield text, reason
        is_clipped = is_clipped or mode >= raw.FPDF_TEXTRENDERMODE_FILL_CLIP


class _Grid:
    """Boxes with their places in the order of drawing, found by the cells that they touch.

    A cell keeps the last boxes, so that a page takes time in proportion to its objects.
    """

    def __init__(self, page: pypdfium2.PdfPage, boxes: Iterable[tuple[Box, int]]) -> None:
        self._outer = page.get_bbox()
        self._by_cell: dict[tuple[int, int], deque[tuple[Box, int]]] = defaultdict(
            lambda: deque(maxlen=_BOXES_IN_CELL)
        )
        for box, place in boxes:
            for cell in self._cells(box):
                self._by_cell[cell].append((box, place))

    def touching(self, box: Box) -> list[int]:
        near = chain.from_iterable(self._by_cell.get(cell, ()) for cell in self._cells(box))
        return [at for one, at in near if _overlap(box, one, 0) and _overlap(box, one, 1)]

    def _cells(self, box: Box) -> Iterator[tuple[int, int]]:
        outer, cells = self._outer, []
        for edge, axis in enumerate((0, 1, 0, 1)):
            share = (box[edge] - outer[axis]) / max(outer[axis + 2] - outer[axis], 1)
            cells.append(int(_CELLS * max(0, min(1, share))))
        return product(range(cells[0], cells[2] + 1), range(cells[1], cells[3] + 1))


def _boxes_of_annotations(page: pypdfium2.PdfPage) -> Iterator[Box]:
    """Yield the boxes of annotations that may cover a text; hide notes, which a reader can move."""
    for annotation in _annotations(page):
        edges = raw.FS_RECTF()
        if raw.FPDFAnnot_GetSubtype(annotation) in _NOTES:
            raw.FPDFAnnot_SetFlags(annotation, raw.FPDF_ANNOT_FLAG_HIDDEN)
        else:
            raw.FPDFAnnot_GetRect(annotation, edges)
            yield edges.left, edges.bottom, edges.right, edges.top


class _Comparison:
    """Compares a page with the same page without some of its texts."""

    def __init__(self, page: pypdfium2.PdfPage, texts: Sequence[_Object]) -> None:
        self._turned = partial(_TURNS[page.get_rotation()], page.get_bbox())
        self._scale = _scale_within(*page.get_size())
        self._edges = tuple(ctypes.c_double() for _ in range(4))
        self._with = self._rendered(page) if texts else b""
        for text in texts:
            raw.FPDFPageObj_SetIsActive(text.handle, 0)
        self._without = self._rendered(page) if texts else b""

    def _rendered(self, page: pypdfium2.PdfPage) -> bytes:
        bitmap = page.render(scale=self._scale, may_draw_forms=False, rev_byteorder=True)
        self._row, self._channels = bitmap.stride, bitmap.n_channels
        return bytes(bitmap.buffer).translate(_STEPS)

    def hides(
        self, text: pypdfium2.PdfTextPage, index: int, owner: _Object, reason: _Reason
    ) -> bool:
        """Return whether a character, apart from its edges, does not change the page."""
        if reason not in _COMPARED:
            return True
        left, right, bottom, top = self._edges
        raw.FPDFText_GetCharBox(text, index, *self._edges)
        box = self._turned((left.value, bottom.value, right.value, top.value))
        x0, x1 = self._pixels(box[0], box[2])
        y0, y1 = self._pixels(box[1], box[3])
        x0, x1 = x0 * self._channels, x1 * self._channels
        rows = range(y0 * self._row, y1 * self._row, self._row)
        color = self._without[rows[0] + x0 : rows[0] + x0 + 3]
        if reason is _Reason.ALIKE and color != owner.shade[:3]:
            return False
        return all(self._with[at + x0 : at + x1] == self._without[at + x0 : at + x1] for at in rows)

    def _pixels(self, start: float, end: float) -> tuple[int, int]:
        start, end = (max(0, min(_MAX_SIDE, edge)) for edge in (start, end))
        inset = (end - start) * _INSET
        first = max(0, math.floor((start + inset) * self._scale))
        return first, max(first + 1, math.ceil((end - inset) * self._scale))


def _address(handle: raw.FPDF_PAGEOBJECT) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _scale(matrix: PdfMatrix | raw.FS_MATRIX) -> float:
    return float(abs(matrix.a * matrix.d - matrix.b * matrix.c) ** 0.5)


def _matches(data: bytes, extension: str) -> bool:
    position = data[:1024].find(b"%PDF-")
    if position < 0:
        return extension == ".pdf" and b"endobj" in data
    # A text may mention PDF; a file with junk before its header also has the trailer.
    return not data[:position].strip() or extension == ".pdf" or b"startxref" in data


def _scan(data: bytes) -> Scan:
    document = opened(data)
    return Scan(
        pages=(_page(document, index) for index in range(len(document))),
        media_type="application/pdf",
        title=document.get_metadata_value("Title"),
    )


def _page(document: pypdfium2.PdfDocument, index: int) -> Image | PageText | None:
    try:
        page = document[index]
        content, _ = text_of(page, page.get_textpage(), index + 1)
        if content.text.strip():
            return content
        width, height = page.get_size()
        area = max(1.0, width * height)
        scale = min(_SCAN_DENSITY / POINTS_PER_INCH, (MAX_SCAN_PIXELS / area) ** 0.5)
        picture: Image = page.render(scale=scale, grayscale=True).to_pil()
    except pypdfium2.PdfiumError:
        return None
    picture.info[DOTS_PER_INCH] = (scale * POINTS_PER_INCH, scale * POINTS_PER_INCH)
    page.close()
    return picture


FORMAT = Format("PDF", of_bytes(read), extensions=(".pdf",), matches=_matches, scan=_scan)
