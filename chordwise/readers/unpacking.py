"""The documents of one file: its own text, its rows, and whatever stands in the files inside it.

Each file that is open has a parser process of its own, so a part that takes its parser with it
costs nothing but that part; nothing is kept but the parts on the way to the one at hand, each in a
file without a name in the folder for temporary files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

from chordwise.domain.json_values import text
from chordwise.domain.visible_text import printable
from chordwise.errors import ReadError
from chordwise.readers import failures, ocr_data
from chordwise.readers.contents import Content
from chordwise.readers.documents import ReadDocument, UnreadDocument, checked, failure
from chordwise.readers.extracted import Columns
from chordwise.readers.parser_process import Answer, FileQuestion, ParserProcess
from chordwise.readers.reading_time import ReadingTime
from chordwise.settings import ReaderSettings

LEVELS = 6
"""How deep files may lie in files: a mailbox, a message in it, one attached, an archive, a file."""
_MEGABYTE = 1024 * 1024
_NAME_CHARACTERS = 500
# A hostile archive could otherwise take a worker's whole time limit for each of its parts.
_COSTLY = ("timeout", "parser_crashed", "memory")
_COSTLY_PARTS = 20


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
            for found in self._documents(content, source, source, 0):
                self._count_document()
                _require_unchanged(content)
                yield found
        except _BoundReachedError as bound:
            yield _unread(source, bound.error, content)

    def _documents(
        self, content: Content, source: str, name: str, level: int
    ) -> Iterator[ReadDocument | UnreadDocument]:
        try:
            if not content.byte_count:
                raise failures.empty()
            for answer in self._answers(content, name, level):
                yield from self._answered(answer, (content, source), level)
        except ReadError as error:
            if self._time.is_over:
                raise _BoundReachedError(_too_slow(self._time.total)) from error
            self._count_costs(error)
            yield _unread(source, error, content)

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
                scan = replace(question, ocr_data=str(ocr_data.folder(self._settings)))
                seen = {"invisible_characters": header.get("invisible_characters")}
                for again in parser.answers(content.file, scan, self._time):
                    yield replace(again, header={**again.header, **seen})
            else:
                yield answer

    def _answered(
        self, answer: Answer, whole: tuple[Content, str], level: int
    ) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield what an answer about a file (its content and source) stands for."""
        (content, source), header = whole, answer.header
        place = _name(header.get("place"))
        here = f"{source}#{place}" if place else source
        origin = None if place else content
        if "what" in header:
            error = failure(header)
            self._count_costs(error)
            yield _unread(here, error, origin)
        elif answer.part is not None:
            with closing(answer.part) as part:
                self._spend(part.byte_count, level)
                yield from self._documents(part, here, _name(header.get("name")), level + 1)
        else:
            yield self._read(answer, here, origin)

    def _read(
        self, answer: Answer, source: str, origin: Content | None
    ) -> ReadDocument | UnreadDocument:
        """Return a text; one without a file of its own, such as a row, has the hash of its text."""
        sha256 = origin.sha256 if origin else hashlib.sha256(answer.text).hexdigest()
        byte_count = origin.byte_count if origin else len(answer.text)
        try:
            text = checked(answer.header, answer.text, self._settings.max_characters)
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
