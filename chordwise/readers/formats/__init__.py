"""The interface of formats, and the formats by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from chordwise.kinds import Kinds
from chordwise.readers.reader_output import Extracted, Extraction, PageText, ReadOptions

if TYPE_CHECKING:
    from PIL.Image import Image

TextReader: TypeAlias = Callable[[BinaryIO, ReadOptions], Extracted | Iterator[Extraction]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The pages of a file on demand: a picture in gray, or its text; `None` if it is damaged."""

    pages: Iterator[Image | PageText | None]
    media_type: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Format:
    """A format: how it is recognized, and the reader of the text of a file or of its items.

    `labels` name it in messages, separated by commas. A file with one of the `extensions` is of
    this or another binary format, or mislabeled. `matches` recognizes the content, given the
    extension; formats with a low `rank` are asked first, and those of text have a higher one than
    0. `parts` are the alternatives for names and folders in a ZIP archive; the longest decides.
    `streams` are names in the root of an OLE container. `scan` returns the pages of a file that may
    have no text. Readers raise a `ReadError` if the file is damaged, encrypted, hostile, or longer
    than the limits.
    """

    labels: str
    read: TextReader
    extensions: tuple[str, ...] = ()
    matches: Callable[[bytes, str], bool] | None = None
    rank: int = 0
    parts: tuple[tuple[str, ...], ...] = ()
    streams: tuple[str, ...] = ()
    scan: Callable[[bytes], Scan] | None = None


FORMATS: Kinds[Format] = Kinds("chordwise.readers.formats", "FORMAT")


def of_bytes(read: Callable[[bytes, int], Extracted]) -> TextReader:
    """Return a reader of the content that is limited to a number of characters."""
    return lambda file, options: read(file.read(), options.max_characters)


def in_place(read: Callable[[BinaryIO, int], Extracted]) -> TextReader:
    """Return a reader of the file, whose pictures may be too large for memory."""
    return lambda file, options: read(file, options.max_characters)


def of_items(read: Callable[[bytes, ReadOptions], Iterator[Extraction]]) -> TextReader:
    """Return a reader of the items of a file."""
    return lambda file, options: read(file.read(), options)


def ascii_start(data: bytes) -> bytes:
    """Return the start of a text in lower case, so that tags in ASCII match.

    It lacks the zero bytes and marks of UTF-16.
    """
    return data[:4096].replace(b"\0", b"").lstrip(b"\xff\xfe\xef\xbb\xbf").lower()
