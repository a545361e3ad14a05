"""Reads files into text: the one thing that the rest of Chordwise knows about readers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import BinaryIO, Self

from chordwise.domain.visible_text import printable
from chordwise.errors import ReadError
from chordwise.readers import contents, failures, loading
from chordwise.readers.capacity import MEGABYTE, limits
from chordwise.readers.contents import Content
from chordwise.readers.documents import ReadDocument, ReadText, UnreadDocument
from chordwise.readers.extracted import WHOLE, Columns
from chordwise.readers.parser_process import ParserProcess
from chordwise.readers.reading_time import ReadingInterruptedError, ReadingTime
from chordwise.readers.unpacking import Unpacking
from chordwise.settings import ReaderSettings

__all__ = [
    "WHOLE",
    "Columns",
    "ReadDocument",
    "ReadText",
    "Reader",
    "ReadingInterruptedError",
    "UnreadDocument",
]


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

        Whoever reads gets a ReadingInterruptedError.
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
            file = loading.opened(path, megabytes, follow_symlinks=follow_symlinks)
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

    def _documents(
        self, content: Content, source: str, columns: Columns
    ) -> Iterator[ReadDocument | UnreadDocument]:
        reading_time = ReadingTime(self._settings.file_timeout_seconds, self._interruption)
        unpacking = Unpacking(self._settings, columns, self._parser_at, reading_time)
        return unpacking.documents(content, source)

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
