"""The output of the readers of formats: raw texts, contained files, and failures."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol, TypeAlias

from chordwise.domain import places
from chordwise.domain.json_values import JsonObject
from chordwise.domain.pictures import Picture
from chordwise.domain.places import Place, PlaceKind
from chordwise.errors import ReadError

leaves_out_unseen: ContextVar[bool] = ContextVar("leaves_out_unseen", default=False)
"""Whether readers leave out text that is not visible in the file (`readers.hidden_text`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns with the text and name of each row; without a text column, rows are not split."""

    text: str = ""
    identity: str = ""


WHOLE = Columns()


class Transcriber(Protocol):
    """Reads pictures of pages, outside of the parser process."""

    @property
    def model(self) -> str:
        """Return the name of the model, as in `documents.transcribed_by`."""
        ...

    def transcribe(self, pictures: Iterator[Picture], source: str) -> Mapping[int, str]:
        """Return the texts of pages of a document, by page number.

        Raises:
            ReadError: A page cannot be read, permanently.
            ChordwiseError: No page of any document can be read at the moment.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What to read of a file, and within which limits; values of JSON.

    `name` distinguishes kinds of text. The pages of a scan are recognized with the language data
    (`eng+deu`) in the folder `ocr_data`, or at most `shown_pages` of them are answered as pictures.
    `page` requests nothing but a picture of this page. With `is_text`, the file is a text in UTF-8
    that was read before, and `known` replaces its metadata.
    """

    max_characters: int
    max_part_bytes: int
    max_text_bytes: int = 0
    timeout_seconds: float = 0.0
    leaves_out_unseen: bool = False
    name: str = ""
    columns: Columns = WHOLE
    ocr_data: str = ""
    ocr_languages: str = ""
    shown_pages: int = 0
    edge_pixels: int = 0
    page: int = 0
    is_text: bool = False
    known: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """One text before normalization.

    `pages_unread` counts damaged pages, `pages_scanned` unrecognized pictures beside pages with
    text. `unseen` are the passages with invisible characters, `unseen_at` their positions if known,
    and `is_covered` is whether something is drawn over one. `left_out` are hidden passages outside
    of the text that address a model. `place` is the name of the text within the file, if any.
    `is_partial` is whether the file shows more than its text, such as a picture, a drawing, a note
    or a form field; `fields_unread` counts the fields that a person can fill in.
    """

    text: str
    media_type: str
    title: str = ""
    encoding: str | None = None
    pages: int | None = None
    pages_unread: int = 0
    pages_scanned: int = 0
    invisible_characters: int = 0
    unseen: tuple[str, ...] = ()
    unseen_at: tuple[int, ...] = ()
    is_covered: bool = False
    left_out: tuple[str, ...] = ()
    place: str = ""
    places: Sequence[Place] = ()
    is_partial: bool = False
    fields_unread: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainedFile:
    """A file inside of the file; iterating over its `pieces` may raise ReadError.

    `label` is a readable name of a message or an attachment.
    """

    place: str
    name: str
    pieces: Iterable[bytes]
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """An item of the file without text, and why."""

    place: str
    error: ReadError


Source: TypeAlias = bytes | BinaryIO
"""Bytes in memory, or a file that is read on demand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageText:
    """The text of a page, counted from 1, its displayed size, and the layout of its words.

    `picture` replaces the text of a page that is to be read by a model.
    """

    number: int
    text: str
    width: float
    height: float
    layout: bytes = b""
    picture: Picture | None = None


Extraction: TypeAlias = Extracted | ContainedFile | Unread


_CHANNELS = 3
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BITS, _RGB = 8, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPage:
    """A rendered page: red, green and blue of each pixel, row by row from the top."""

    width: int
    height: int
    pixels: bytes | bytearray

    @property
    def is_complete(self) -> bool:
        """Whether the number of pixels matches the size."""
        is_some = self.width > 0 and self.height > 0
        return is_some and len(self.pixels) == self.width * self.height * _CHANNELS

    def as_png(self) -> bytes:
        """Return the picture as a PNG (ISO/IEC 15948) with unfiltered rows."""
        row = self.width * _CHANNELS
        starts = range(0, len(self.pixels), row)
        rows = b"".join(b"\0" + self.pixels[start : start + row] for start in starts)
        size = struct.pack("!IIBBBBB", self.width, self.height, _EIGHT_BITS, _RGB, 0, 0, 0)
        parts = ((b"IHDR", size), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
        return _PNG_SIGNATURE + b"".join(_png_part(*part) for part in parts)


def _png_part(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack("!I", zlib.crc32(kind + content))
    return struct.pack("!I", len(content)) + kind + content + checksum


SEPARATOR = "\n\n"
"""The separator between the pages, slides and blocks of a text."""


def joined(texts: Iterable[str]) -> tuple[str, list[int]]:
    """Return the texts separated by blank lines, and the position of each."""
    listed = list(texts)
    lengths = (len(text) + len(SEPARATOR) for text in listed)
    return SEPARATOR.join(listed), list(itertools.accumulate(lengths, initial=0))[:-1]


def of_pages(pages: Iterable[PageText]) -> tuple[str, list[Place]]:
    """Return the text of pages, and the pages as places."""
    listed = list(pages)
    text, starts = joined(page.text for page in listed)
    page_places = [
        Place(
            kind=PlaceKind.PAGE,
            label=f"p. {page.number}",
            start_char=start,
            end_char=start + len(page.text),
            number=page.number,
            width=round(page.width, 2),
            height=round(page.height, 2),
            layout=page.layout,
        )
        for page, start in zip(listed, starts, strict=True)
    ]
    return text, page_places


def nonblank_characters(passages: Iterable[str]) -> int:
    """Return the number of characters in passages without their white space."""
    return sum(len("".join(passage.split())) for passage in passages)


def encoded_places(listed: Sequence[Place], offset: Callable[[int], int] | None) -> bytes:
    """Return places as JSON and layouts; `offset` moves them to the normalized text, if given."""
    kept = listed[: places.MAX_PLACES]
    return places.encode([places.moved(place, offset) for place in kept] if offset else kept)


def markdown(rows: Iterable[Sequence[str]], spend: Callable[[int], None]) -> str:
    """Return the non-empty rows as a Markdown table; `spend` is called with each line's length.

    Raises:
        ReadError: Raised by `spend`.
    """
    return "\n".join(line for _, line in markdown_lines(rows, spend))


def markdown_lines(
    rows: Iterable[Sequence[str]], spend: Callable[[int], None]
) -> list[tuple[int | None, str]]:
    """Return the lines of `markdown`, each with the index of its row, from 0.

    Raises:
        ReadError: Raised by `spend`.
    """
    lines: list[tuple[int | None, str]] = []
    width = 0
    for position, row in enumerate(rows):
        cells = [cell(value) for value in row]
        if not any(cells):
            continue
        line = f"| {' | '.join(cells)} |"
        spend(len(line) + 1)
        if not lines:
            width = len(cells)
        lines.append((position, line))
    if lines:
        lines.insert(1, (None, "|" + " --- |" * width))
    return lines


def cell(text: str) -> str:
    """Return the text of a cell in a Markdown table."""
    lines = (line.strip() for line in text.strip().splitlines())
    return "<br>".join(line for line in lines if line).replace("|", "\\|")


class Naming:
    """The names of the places in one file that are already in use."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def place(self, name: str) -> str:
        """Return the name, followed by a number if it was used before."""
        count = self._taken[name] = self._taken.get(name, 0) + 1
        return name if count == 1 else f"{name} ({count})"
