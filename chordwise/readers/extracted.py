"""What a format's reader gives: texts as they stand in the file, files inside it, and failures."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol, TypeAlias

from chordwise.domain import places
from chordwise.domain.pictures import Picture
from chordwise.domain.places import Place, PlaceKind
from chordwise.domain.text_normalization import normalize
from chordwise.errors import ReadError


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of a table that hold each row's text and name; no text column: read it whole."""

    text: str = ""
    identity: str = ""


WHOLE = Columns()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ocr:
    """How pictures of pages become text: Tesseract's languages (`eng+deu`) and their folder."""

    data: str
    languages: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How pages without text are shown to a model: how many at most, and how large."""

    max_pages: int
    max_edge_pixels: int


class Transcriber(Protocol):
    """Reads pictures of pages, outside of the parser process."""

    @property
    def model(self) -> str:
        """Return who reads, as `documents.transcribed_by` has it."""
        ...

    def transcribe(self, pictures: Iterator[Picture], source: str) -> Mapping[int, str]:
        """Return the texts of pages of a document, by their numbers.

        Raises:
            ReadError: A page cannot be read, for good.
            ChordwiseError: None can be read for now: neither this document nor the next one.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to read of a file, and how much: characters of a text, bytes of a file inside it.

    `ocr` or `shown` is set for a file that is known to be a scan or a picture.
    """

    max_characters: int
    max_part_bytes: int
    columns: Columns = field(default=WHOLE)
    ocr: Ocr | None = None
    shown: Shown | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """One text, before it is normalised.

    `encoding` is Python's name of the text encoding, `None` for formats that have their own.
    `pages` counts pages where the format has them; `pages_unread` those that are damaged,
    `pages_scanned` those that are pictures and were not recognized, beside others with text.
    `invisible_characters` counts those of the text that cannot be seen in the file; `unseen` are
    the passages of the text that they are in, in its order. `left_out` are passages that speak to a
    model and are not in the text, because the file hides them.
    `place` says where in the file it stands; empty for the text of the file itself. `places` are
    the pages, slides, sheets or sections of the text.
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
    left_out: tuple[str, ...] = ()
    place: str = ""
    places: Sequence[Place] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A file inside the file, to be read like any other; `name` distinguishes kinds of text.

    `pieces` are its bytes; taking them may raise ReadError where it is damaged. `label` names a
    message or an attachment for people.
    """

    place: str
    name: str
    pieces: Iterable[bytes]
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """Something in the file that gives no text, and why."""

    place: str
    error: ReadError


Source: TypeAlias = bytes | BinaryIO
"""Bytes in memory, or a file that is read where it is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageText:
    """The text of a page, counted from 1, its size as it is shown, and where its words are.

    `picture` stands for the text of a page that is to be read by a model.
    """

    number: int
    text: str
    width: float
    height: float
    layout: bytes = b""
    picture: Picture | None = None


Extraction: TypeAlias = Extracted | Part | Unread


_CHANNELS = 3
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BITS, _RGB = 8, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPage:
    """What a page looks like: red, green and blue of each pixel, row by row from the top."""

    width: int
    height: int
    pixels: bytes | bytearray

    @property
    def is_complete(self) -> bool:
        """Whether there are as many pixels as the size says."""
        is_some = self.width > 0 and self.height > 0
        return is_some and len(self.pixels) == self.width * self.height * _CHANNELS

    def as_png(self) -> bytes:
        """Return the picture as a PNG (ISO/IEC 15948), whose rows are not filtered."""
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
"""What stands between the pages, slides and blocks of a text."""


def joined(texts: Iterable[str]) -> tuple[str, list[int]]:
    """Return texts with a blank line between them, and where each begins."""
    listed = list(texts)
    lengths = (len(each) + len(SEPARATOR) for each in listed)
    return SEPARATOR.join(listed), list(itertools.accumulate(lengths, initial=0))[:-1]


def of_pages(pages: Iterable[PageText]) -> tuple[str, list[Place]]:
    """Return the text of pages, and the pages as places."""
    listed = list(pages)
    text, starts = joined(each.text for each in listed)
    found = [
        Place(
            kind=PlaceKind.PAGE,
            label=f"p. {each.number}",
            start_char=start,
            end_char=start + len(each.text),
            number=each.number,
            width=round(each.width, 2),
            height=round(each.height, 2),
            layout=each.layout,
        )
        for each, start in zip(listed, starts, strict=True)
    ]
    return text, found


def encoded_places(text: str, found: Sequence[Place]) -> bytes:
    """Return the places of a text as they are once it is normalized, as JSON and layouts."""
    kept = found[: places.MAX_PLACES]
    offset = normalize(text).offsets()
    return places.encode([places.moved(each, offset) for each in kept] if offset else kept)


def markdown(rows: Iterable[Sequence[str]], spend: Callable[[int], None]) -> str:
    """Return the rows that hold something, the first as the heading; `spend` takes their lengths.

    Raises:
        ReadError: As `spend` decides.
    """
    return "\n".join(line for _, line in markdown_lines(rows, spend))


def markdown_lines(
    rows: Iterable[Sequence[str]], spend: Callable[[int], None]
) -> list[tuple[int | None, str]]:
    """Return the lines of `markdown`, each with the position of its row, from 0.

    Raises:
        ReadError: As `spend` decides.
    """
    lines: list[tuple[int | None, str]] = []
    width = 0
    for position, row in enumerate(rows):
        cells = [cell(each) for each in row]
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
    """Return the text of a cell as it stands in a Markdown table."""
    lines = (line.strip() for line in text.strip().splitlines())
    return "<br>".join(line for line in lines if line).replace("|", "\\|")


class Naming:
    """The places that were given out in one file."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def place(self, name: str) -> str:
        """Return the name, with a number behind it from the second time on."""
        count = self._taken[name] = self._taken.get(name, 0) + 1
        return name if count == 1 else f"{name} ({count})"
