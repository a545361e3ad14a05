"""The documents of one file: its own text, its rows, and whatever stands in the files inside it.

Each file that is open has a parser process of its own, so a part that takes its parser with it
costs nothing but that part; nothing is kept but the parts on the way to the one at hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from chordwise.domain.json_values import JsonObject, text
from chordwise.errors import ReadError
from chordwise.readers import failures, ocr_data
from chordwise.readers.documents import ReadDocument, UnreadDocument, checked, failure
from chordwise.readers.extracted import Columns
from chordwise.readers.parser_process import ParserProcess
from chordwise.readers.printable_names import printable
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
    ) -> None:
        self._settings = settings
        self._columns = columns
        self._parser_at = parser_at
        self._documents_left = settings.max_documents
        self._bytes_left = settings.max_unpacked_megabytes * _MEGABYTE
        self._costly_left = _COSTLY_PARTS

    def documents(self, data: bytes, source: str) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield document after document; where a bound ends it, the last one says so."""
        try:
            for found in self._documents(data, source, source, 0):
                self._count_document()
                yield found
        except _BoundReachedError as bound:
            yield _unread(source, bound.error, data)

    def _documents(
        self, data: bytes, source: str, name: str, level: int
    ) -> Iterator[ReadDocument | UnreadDocument]:
        try:
            self._check_size(data)
            for header, body in self._answers(data, name, level):
                yield from self._answered(header, body, (data, source), level)
        except ReadError as error:
            self._count_costs(error)
            yield _unread(source, error, data)

    def _answers(self, data: bytes, name: str, level: int) -> Iterator[tuple[JsonObject, bytes]]:
        """Ask the parser; where it finds pictures of pages, once more if they are to be recognized.

        Raises:
            ReadError: The parser broke over the file, or scans cannot be recognized here.
        """
        parser = self._parser_at(level)
        for header, body in parser.answers(data, name, self._columns):
            is_scanned = header.get("reason") == failures.NEEDS_OCR or header.get("pages_scanned")
            if is_scanned and self._settings.ocr:
                folder = str(ocr_data.folder(self._settings))
                seen = {"invisible_characters": header.get("invisible_characters")}
                for again, text in parser.answers(data, name, self._columns, folder):
                    yield {**again, **seen}, text
            else:
                yield header, body

    def _answered(
        self, header: JsonObject, body: bytes, whole: tuple[bytes, str], level: int
    ) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield what an answer about a file (its bytes and source) stands for."""
        data, source = whole
        place = _name(header.get("place"))
        here = f"{source}#{place}" if place else source
        origin = body if place else data
        if "what" in header:
            error = failure(header)
            self._count_costs(error)
            yield _unread(here, error, None if place else data)
        elif header.get("part"):
            self._spend(len(body), level)
            yield from self._documents(body, here, _name(header.get("name")), level + 1)
        else:
            yield self._read(header, body, here, origin)

    def _read(
        self, header: JsonObject, body: bytes, source: str, origin: bytes
    ) -> ReadDocument | UnreadDocument:
        try:
            content = checked(header, body, self._settings.max_characters)
        except ReadError as error:
            return _unread(source, error, origin)
        return ReadDocument(
            source=source, sha256=_sha256(origin), byte_count=len(origin), content=content
        )

    def _check_size(self, data: bytes) -> None:
        if not data:
            raise failures.empty()
        if len(data) > self._settings.max_file_megabytes * _MEGABYTE:
            raise failures.larger_than(self._settings.max_file_megabytes)

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


def _unread(source: str, error: ReadError, data: bytes | None) -> UnreadDocument:
    return UnreadDocument(
        source=source,
        error=failures.named(source, error),
        sha256=None if data is None else _sha256(data),
        byte_count=None if data is None else len(data),
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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


def _too_costly() -> ReadError:
    return failures.too_large(
        f"holds {_COSTLY_PARTS} parts that broke a limit or their parser; the rest was left out.",
        "Unpack it and submit the parts that are wanted.",
        "too_many_failures",
    )
