"""Reads files into text: the one thing that the rest of Chordwise knows about readers."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import BinaryIO, Self

from chordwise.domain.json_values import number, text
from chordwise.domain.visible_text import printable
from chordwise.errors import ReadError
from chordwise.readers import contents, failures
from chordwise.readers.capacity import MEGABYTE, ReadingInterruptedError, ReadingTime, limits
from chordwise.readers.contents import Content
from chordwise.readers.documents import (
    ReadDocument,
    ReadText,
    UnreadDocument,
    checked,
    failure,
    with_places,
)
from chordwise.readers.extracted import WHOLE, Columns, Picture
from chordwise.readers.parser_process import Answer, FileQuestion, ParserProcess
from chordwise.settings import ReaderSettings

__all__ = [
    "WHOLE",
    "Columns",
    "Picture",
    "ReadDocument",
    "ReadText",
    "Reader",
    "ReadingInterruptedError",
    "UnreadDocument",
]

_MAX_PICTURE_BYTES = 8 * MEGABYTE


class Reader:
    """Turns files into text, in child processes with limits that start with the first file.

    Not for sharing between threads, and one file is read to its end, or given up, before the next
    is begun. Close it, or use it as a context manager.
    """

    def __init__(self, settings: ReaderSettings) -> None:
        self._settings = settings
        self._limits = limits(settings)
        self._interruption = Event()
        self._parsers = ParserProcess(settings, self._limits)
        # For files in files: each that is open has a process of its own.
        self._inner: list[ParserProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child processes; the next file would start another."""
        for parser in (self._parsers, *self._inner):
            parser.stop()

    def interrupt(self) -> None:
        """End the reading of the file at hand, from another thread.

        The reading thread gets a ReadingInterruptedError.
        """
        self._interruption.set()
        for parser in (self._parsers, *self._inner):
            parser.kill()

    def read_documents(
        self,
        path: Path,
        columns: Columns = WHOLE,
        *,
        follow_symlinks: bool = True,
        source: str = "",
    ) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield what a regular file holds, at least one; whatever is wrong is a value, too.

        `source` is the printable name that it is shown under, where that is not its path.

        Most files are one document. A message is followed by its attachments; a mailbox and an
        archive are what they hold; a table is one document, or one for each row by `columns`.

        Raises:
            ReadingInterruptedError: See `interrupt`.
        """
        self._interruption.clear()
        source = source or printable(str(path))
        megabytes = self._limits.max_file_megabytes
        try:
            file = contents.opened(path, megabytes, follow_symlinks=follow_symlinks)
            with file:
                yield from self._documents(contents.of_file(file, megabytes), source, columns)
        except ReadError as error:
            yield UnreadDocument(source=source, error=failures.named(source, error))

    def documents_from(
        self, stream: BinaryIO, name: str, columns: Columns = WHOLE
    ) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield what a stream holds up to its end; `name` tells kinds of text apart."""
        self._interruption.clear()
        source = printable(name)
        try:
            limited = _limited(contents.slices(stream), self._limits.max_file_megabytes)
            with closing(contents.spooled(limited)) as content:
                yield from self._documents(content, source, columns)
        except ReadError as error:
            yield UnreadDocument(source=source, error=failures.named(source, error))

    def documents_in(
        self, data: bytes, name: str, columns: Columns = WHOLE
    ) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield what content in memory holds; `name` tells kinds of text apart."""
        return self.documents_from(io.BytesIO(data), name, columns)

    def read(self, path: Path, *, follow_symlinks: bool = True) -> ReadDocument | UnreadDocument:
        """Return the first document of a file: for most, the only one."""
        return next(self.read_documents(path, follow_symlinks=follow_symlinks))

    def read_bytes(self, data: bytes, name: str) -> ReadDocument | UnreadDocument:
        """Return the first document of content that is in memory."""
        return next(self.documents_in(data, name))

    def picture(self, file: BinaryIO, page: int) -> Picture:
        """Return what a page of an open PDF looks like; pages are counted from 1.

        Raises:
            ReadError: The file is no PDF or damaged, or has no such page.
            ReadingInterruptedError: See `interrupt`.
        """
        self._interruption.clear()
        question = FileQuestion(name="", page=page, max_picture_bytes=_MAX_PICTURE_BYTES)
        answers = list(self._parsers.answers(file, question, self._reading_time()))
        header = answers[0].header if answers else {}
        if "what" in header:
            raise failure(header)
        width, height = (int(number(header.get(name)) or 0) for name in ("width", "height"))
        found = Picture(width=width, height=height, pixels=answers[0].text if answers else b"")
        if not found.is_complete:
            raise failures.malformed(f"has no page {page} that can be shown.")
        return found

    def _documents(
        self, content: Content, source: str, columns: Columns
    ) -> Iterator[ReadDocument | UnreadDocument]:
        unpacking = Unpacking(self._settings, columns, self._parser_at, self._reading_time())
        return unpacking.documents(content, source)

    def _reading_time(self) -> ReadingTime:
        return ReadingTime(self._settings.file_timeout_seconds, self._interruption)

    def _parser_at(self, level: int) -> ParserProcess:
        if not level:
            return self._parsers
        while len(self._inner) < level:
            self._inner.append(ParserProcess(self._settings, self._limits))
        return self._inner[level - 1]


def _limited(pieces: Iterator[bytes], megabytes: int) -> Iterator[bytes]:
    left = megabytes * MEGABYTE
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise failures.larger_than(megabytes)
        yield piece


_LIBRARIES = ("tesserocr", "PIL")
# Where the packages of Debian, of Fedora and Arch, and of Homebrew put them.
_OF_THE_SYSTEM = (
    *sorted(Path("/usr/share/tesseract-ocr").glob("*/tessdata"), reverse=True),
    Path("/usr/share/tesseract/tessdata"),
    Path("/usr/share/tessdata"),
    Path("/opt/homebrew/share/tessdata"),
)


def folder(settings: ReaderSettings) -> Path:
    """Return the first folder that has the data of all languages that the settings name.

    Raises:
        ReadError: The extra is not installed, or a language has no data.
    """
    if any(importlib.util.find_spec(library) is None for library in _LIBRARIES):
        raise failures.ocr_missing()
    languages = settings.ocr_languages.split("+")
    for each in _folders(settings):
        if all((each / f"{language}.traineddata").is_file() for language in languages):
            return each
    raise failures.ocr_language_missing(settings.ocr_languages)


def _folders(settings: ReaderSettings) -> Iterator[Path]:
    if settings.ocr_data is not None:
        yield settings.ocr_data
        return
    yield Path(sys.prefix) / "share" / "tessdata"
    yield from _OF_THE_SYSTEM


LEVELS = 6
"""How deep files may lie in files: a mailbox, a message in it, one attached, an archive, a file."""
_MEGABYTE = 1024 * 1024
_NAME_CHARACTERS = 500
# A hostile archive could otherwise take a worker's whole time limit for each of its parts.
_COSTLY = ("timeout", "parser_crashed", "memory")
_COSTLY_PARTS = 20


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a file comes from: its source, its name, and which part of a mail it is, in words."""

    source: str
    name: str
    label: str = ""


class Unpacking:
    """The documents of one file, within bounds on their number, size and depth."""

    def __init__(
        self,
        settings: ReaderSettings,
        columns: Columns,
        parser_at: Callable[[int], ParserProcess],
        reading_time: ReadingTime,
    ) -> None:
        self._settings = settings
        self._time = reading_time
        self._columns = columns
        self._parser_at = parser_at
        self._documents_left = settings.max_documents
        self._bytes_left = settings.max_unpacked_megabytes * _MEGABYTE
        self._costly_left = _COSTLY_PARTS

    def documents(self, content: Content, source: str) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield document after document; where a bound ends it, the last one says so.

        Raises:
            ReadingInterruptedError: Another thread has ended it.
        """
        try:
            for found in self._documents(content, _Origin(source, source), 0):
                self._count_document()
                _require_unchanged(content)
                yield found
        except _BoundReachedError as bound:
            yield _unread(source, bound.error, content)

    def _documents(
        self, content: Content, origin: _Origin, level: int
    ) -> Iterator[ReadDocument | UnreadDocument]:
        try:
            if not content.byte_count:
                raise failures.empty()
            for answer in self._answers(content, origin.name, level):
                yield from self._answered(answer, (content, origin), level)
        except ReadError as error:
            if self._time.is_over:
                raise _BoundReachedError(_too_slow(self._time.total)) from error
            self._count_costs(error)
            yield _unread(origin.source, error, content)

    def _answers(self, content: Content, name: str, level: int) -> Iterator[Answer]:
        """Ask the parser; where it finds pictures of pages, once more if they are to be recognized.

        Raises:
            ReadError: The parser broke over the file, or scans cannot be recognized here.
        """
        parser, question = self._parser_at(level), FileQuestion(name=name, columns=self._columns)
        for answer in parser.answers(content.file, question, self._time):
            header = answer.header
            is_scanned = header.get("reason") == failures.NEEDS_OCR or header.get("pages_scanned")
            if is_scanned and self._settings.ocr:
                scan = replace(question, ocr_data=str(folder(self._settings)))
                seen = {name: header.get(name) for name in ("invisible_characters", "unseen")}
                for again in parser.answers(content.file, scan, self._time):
                    yield replace(again, header={**again.header, **seen})
            else:
                yield answer

    def _answered(
        self, answer: Answer, whole: tuple[Content, _Origin], level: int
    ) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield what an answer about a file stands for."""
        (content, origin), header = whole, answer.header
        place = _name(header.get("place"))
        here = f"{origin.source}#{place}" if place else origin.source
        own = None if place else content
        if "what" in header:
            error = failure(header)
            self._count_costs(error)
            yield _unread(here, error, own)
        elif answer.part is not None:
            label = ", ".join(filter(None, (origin.label, _name(header.get("label")))))
            inner = _Origin(here, _name(header.get("name")), label)
            with closing(answer.part) as part:
                self._spend(part.byte_count, level)
                yield from self._documents(part, inner, level + 1)
        else:
            yield self._read(answer, replace(origin, source=here), own)

    def _read(
        self, answer: Answer, origin: _Origin, content: Content | None
    ) -> ReadDocument | UnreadDocument:
        """Return a text; one without a file of its own, such as a row, has the hash of its text."""
        source = origin.source
        sha256 = content.sha256 if content else hashlib.sha256(answer.text).hexdigest()
        byte_count = content.byte_count if content else len(answer.text)
        try:
            text = checked(answer.header, answer.text, self._settings.max_characters)
            text = with_places(text, answer.places, origin.label)
        except ReadError as error:
            named = failures.named(source, error)
            return UnreadDocument(source=source, error=named, sha256=sha256, byte_count=byte_count)
        return ReadDocument(source=source, sha256=sha256, byte_count=byte_count, content=text)

    def _spend(self, byte_count: int, level: int) -> None:
        if level + 1 == LEVELS:
            raise _BoundReachedError(_too_deep())
        self._bytes_left -= byte_count
        if self._bytes_left < 0:
            raise _BoundReachedError(_too_much(self._settings.max_unpacked_megabytes))

    def _count_document(self) -> None:
        if not self._documents_left:
            raise _BoundReachedError(_too_many(self._settings.max_documents))
        self._documents_left -= 1

    def _count_costs(self, error: ReadError) -> None:
        if error.reason in _COSTLY:
            self._costly_left -= 1
        if not self._costly_left:
            raise _BoundReachedError(_too_costly())


class _BoundReachedError(Exception):
    """Ends the reading of a whole file, from whatever depth."""

    def __init__(self, error: ReadError) -> None:
        super().__init__(error)
        self.error = error


def _name(value: object) -> str:
    return printable(text(value if isinstance(value, str) else ""))[:_NAME_CHARACTERS]


def _require_unchanged(content: Content) -> None:
    try:
        content.require_unchanged()
    except ReadError as error:
        raise _BoundReachedError(error) from error


def _unread(source: str, error: ReadError, content: Content | None) -> UnreadDocument:
    return UnreadDocument(
        source=source,
        error=failures.named(source, error),
        sha256=None if content is None else content.sha256,
        byte_count=None if content is None else content.byte_count,
    )


def _too_many(documents: int) -> ReadError:
    return failures.too_large(
        f"holds more than {documents:,} documents; the ones after them were left out.",
        "Split it, or raise readers.max_documents.",
        "too_many_documents",
    )


def _too_much(megabytes: int) -> ReadError:
    return failures.too_large(
        f"unpacks to more than {megabytes} MB; the rest was left out.",
        "Unpack it and submit the folder, or raise readers.max_unpacked_megabytes.",
        "unpacked_size",
    )


def _too_deep() -> ReadError:
    return failures.too_large(
        f"has files in files, {LEVELS} levels deep; the rest was left out.",
        "Unpack it and submit the folder.",
        "nested_too_deep",
    )


def _too_slow(seconds: float) -> ReadError:
    return failures.unreadable(
        f"took longer than {seconds:g} s to read; the rest was left out.",
        "Unpack or split it and submit the parts that are wanted, "
        "or raise readers.file_timeout_seconds.",
        "file_timeout",
    )


def _too_costly() -> ReadError:
    return failures.too_large(
        f"holds {_COSTLY_PARTS} parts that broke a limit or their parser; the rest was left out.",
        "Unpack it and submit the parts that are wanted.",
        "too_many_failures",
    )
