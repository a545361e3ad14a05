"""Reading of files into text: the interface of the readers to the rest of Chordwise."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import BinaryIO, Self

from chordwise.domain.json_values import JsonObject, JsonValue, integer, number, text
from chordwise.domain.pictures import Picture
from chordwise.domain.text_normalization import normalize
from chordwise.domain.visible_text import printable
from chordwise.errors import ReadError
from chordwise.machine import MEGABYTE
from chordwise.readers import contents, failures, protocol
from chordwise.readers.contents import Content
from chordwise.readers.limits import BYTES_PER_CHARACTER, file_limits
from chordwise.readers.parser_process import ParserProcess, ReadingInterruptedError, ReadingTime
from chordwise.readers.protocol import ReadText, Reply
from chordwise.readers.reader_output import (
    WHOLE,
    Columns,
    PageText,
    ReadOptions,
    RenderedPage,
    Transcriber,
    encoded_places,
    of_pages,
)
from chordwise.settings import ReaderSettings

__all__ = [
    "WHOLE",
    "Columns",
    "ReadDocument",
    "ReadText",
    "Reader",
    "ReadingInterruptedError",
    "RenderedPage",
    "Transcriber",
    "UnreadDocument",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadDocument:
    """A text of a file (`a.zip#b/c.txt` inside another), with the hash and size of its bytes."""

    source: str
    sha256: str
    byte_count: int
    content: ReadText

    @property
    def identity(self) -> str:
        """The hash that identifies the document: of its text, and if the file shows more of it.

        Files of different bytes are one document only if nothing visible was left out of the text.
        """
        content = self.content.text.encode()
        if self.content.is_partial:
            content += f"\0{self.sha256}".encode()  # a text has no NUL
        return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadDocument:
    """A file or part without text, and why; hash and size are `None` if it was not opened."""

    source: str
    error: ReadError
    sha256: str | None = None
    byte_count: int | None = None


LEVELS = 6
"""The maximum nesting of files, as in: mailbox, message, attached message, archive, file."""


class Reader:
    """Converts files to text in child processes with limits, which are started with the first file.

    Not thread-safe; a file must be read to its end, or abandoned, before the next one is begun.
    Close the reader, or use it as a context manager.
    """

    def __init__(self, settings: ReaderSettings) -> None:
        limits = file_limits(settings)
        self._settings = settings
        self._megabytes = limits.max_file_megabytes
        self._options = ReadOptions(
            max_characters=settings.max_characters,
            max_part_bytes=limits.max_file_megabytes * MEGABYTE,
            max_text_bytes=limits.max_text_bytes,
            timeout_seconds=settings.timeout_seconds,
            leaves_out_unseen=settings.hidden_text == "leave_out",
            ocr_languages=settings.ocr_languages,
            edge_pixels=settings.max_vision_edge_pixels,
        )
        self._interruption = Event()
        # Files in files are read by the process of their level.
        self._parsers = [ParserProcess(limits.memory_megabytes) for _ in range(LEVELS)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child processes; the next file starts new ones."""
        for parser in self._parsers:
            parser.stop()

    def interrupt(self) -> None:
        """Interrupt the reading of the current file, which raises ReadingInterruptedError there."""
        self._interruption.set()
        for parser in self._parsers:
            parser.kill()

    def read_documents(
        self,
        path: Path,
        columns: Columns = WHOLE,
        *,
        follow_symlinks: bool = True,
        source: str = "",
        transcriber: Transcriber | None = None,
    ) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield the documents of a regular file, at least one; errors are yielded as values.

        A message is followed by its attachments, a mailbox and an archive are replaced by their
        contents, and a table may be one document for each row (`columns`). `source` is printable.
        Exceptions of the `transcriber`, which reads pages without text, are propagated.

        Raises:
            ReadingInterruptedError: See `interrupt`.
        """
        unpacking = self._unpacking(columns, transcriber)
        source = source or printable(str(path))
        try:
            file = contents.opened(path, self._megabytes, follow_symlinks=follow_symlinks)
            with file:
                content = contents.content_of_file(file, self._megabytes)
                yield from unpacking.documents(content, source)
        except ReadError as error:
            yield _unread(source, error)

    def documents_from(
        self,
        stream: BinaryIO,
        name: str,
        columns: Columns = WHOLE,
        transcriber: Transcriber | None = None,
    ) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield the documents of a stream, read to its end; `name` distinguishes kinds of text."""
        unpacking = self._unpacking(columns, transcriber)
        source = printable(name)
        try:
            limited = _limited(contents.slices(stream), self._megabytes)
            with closing(contents.spooled(limited)) as content:
                yield from unpacking.documents(content, source)
        except ReadError as error:
            yield _unread(source, error)

    def documents_in(self, data: bytes, name: str) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield the documents of content in memory; `name` distinguishes kinds of text."""
        return self.documents_from(io.BytesIO(data), name)

    def read(
        self, path: Path, *, follow_symlinks: bool = True, transcriber: Transcriber | None = None
    ) -> ReadDocument | UnreadDocument:
        """Return the first document of a file, which for most files is the only one."""
        return next(
            self.read_documents(path, follow_symlinks=follow_symlinks, transcriber=transcriber)
        )

    def read_bytes(self, data: bytes, name: str) -> ReadDocument | UnreadDocument:
        """Return the first document of content in memory."""
        return next(self.documents_in(data, name))

    def read_text(self, content: str, source: str) -> ReadDocument | UnreadDocument:
        """Return a text that is not in a file, normalized and scanned like that of a file."""
        options = replace(self._options, is_text=True, known={"media_type": "text/plain"})
        reading_time = self._begin()
        try:
            data = content.encode("utf-8", "surrogatepass")
            with closing(contents.spooled([data])) as spooled:
                reply = self._parsers[0].reply(spooled.file, options, reading_time)
                return _document(reply, source, spooled, self._settings.max_characters)
        except ReadError as error:
            return _unread(source, error)

    def picture(self, file: BinaryIO, page: int) -> RenderedPage:
        """Render a page of an open PDF or picture; pages count from 1.

        Raises:
            ReadError: The file is neither or damaged, or has no such page.
            ReadingInterruptedError: See `interrupt`.
        """
        options = replace(self._options, page=page)
        reply = self._parsers[0].reply(file, options, self._begin())
        if "what" in reply.header:
            raise protocol.failure(reply.header)
        width, height = (integer(reply.header.get(name)) or 0 for name in ("width", "height"))
        picture = RenderedPage(width=width, height=height, pixels=reply.text)
        if not picture.is_complete:
            raise failures.malformed(f"has no page {page} that can be shown.")
        return picture

    def part(self, file: BinaryIO, source: str, within: str) -> Content | None:
        """Return the part of an archive or message named `source`; close it after use.

        `within` is the name of the file, with which `source` begins. A missing part is `None`.

        Raises:
            ReadError: The file cannot be unpacked, or exceeds the limits.
            ReadingInterruptedError: See `interrupt`.
        """
        content = Content(file=file, sha256="", byte_count=0)
        return self._unpacking().part(content, within, source)

    def _unpacking(
        self, columns: Columns = WHOLE, transcriber: Transcriber | None = None
    ) -> _Unpacking:
        options = replace(self._options, columns=columns)
        return _Unpacking(self._settings, options, self._parsers, self._begin(), transcriber)

    def _begin(self) -> ReadingTime:
        self._interruption.clear()
        return ReadingTime(self._settings.file_timeout_seconds, self._interruption)


def _limited(pieces: Iterator[bytes], megabytes: int) -> Iterator[bytes]:
    left = megabytes * MEGABYTE
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise failures.larger_than(megabytes)
        yield piece


def _document(
    reply: Reply, source: str, content: Content | None, max_characters: int, within: str = ""
) -> ReadDocument | UnreadDocument:
    """Return the document of a reply; a text without its own file has the hash of the text."""
    try:
        read = protocol.text_of(reply, max_characters, within)
    except ReadError as error:
        return _unread(source, error, content)
    sha256 = content.sha256 if content else hashlib.sha256(reply.text).hexdigest()
    byte_count = content.byte_count if content else len(reply.text)
    return ReadDocument(source=source, sha256=sha256, byte_count=byte_count, content=read)


def _unread(source: str, error: ReadError, content: Content | None = None) -> UnreadDocument:
    return UnreadDocument(
        source=source,
        error=failures.named(source, error),
        sha256=None if content is None else content.sha256,
        byte_count=None if content is None else content.byte_count,
    )


# The folders of the packages of Debian, of Fedora and Arch, and of Homebrew.
_OF_THE_SYSTEM = (
    *sorted(Path("/usr/share/tesseract-ocr").glob("*/tessdata"), reverse=True),
    Path("/usr/share/tesseract/tessdata"),
    Path("/usr/share/tessdata"),
    Path("/opt/homebrew/share/tessdata"),
)


def tesseract_data_folder(settings: ReaderSettings) -> Path:
    """Return the first folder with the data of all languages in the settings.

    Raises:
        ReadError: The extra is not installed, or a language has no data.
    """
    if any(importlib.util.find_spec(library) is None for library in ("tesserocr", "PIL")):
        raise failures.unreadable(
            "is a scan, and the OCR that readers.ocr asks for is not installed.",
            f"Install it where files are taken in: {failures.INSTALL_OCR}.",
            failures.NEEDS_OCR,
        )
    languages = settings.ocr_languages.split("+")
    usual = (Path(sys.prefix) / "share" / "tessdata", *_OF_THE_SYSTEM)
    for folder in usual if settings.ocr_data is None else (settings.ocr_data,):
        if all((folder / f"{language}.traineddata").is_file() for language in languages):
            return folder
    packages = (f"tesseract-ocr-{language.replace('_', '-').lower()}" for language in languages)
    raise failures.unreadable(
        f"is a scan, and no folder has the OCR data of all the languages {settings.ocr_languages}.",
        f"On Debian and Ubuntu: apt-get install {' '.join(packages)}; "
        "else name a folder with LANGUAGE.traineddata files in readers.ocr_data.",
        failures.NEEDS_OCR,
    )


TESSERACT = "tesseract"
"""The value of `transcribed_by` for text recognized by OCR."""


_BYTES_PER_PAGE = 1_000


class ShownPages:
    """The pages of a scan from its parser: pictures to be read, and pages with text."""

    def __init__(self, replies: Iterator[Reply], settings: ReaderSettings) -> None:
        self._replies = replies
        self._settings = settings
        self._pages: list[PageText] = []
        self._end = Reply(header={})
        self._bytes_left = settings.max_characters * BYTES_PER_CHARACTER

    def read_by(self, transcriber: Transcriber, source: str) -> Reply:
        """Return the text of all pages in the form of a reply.

        Raises:
            ReadError: The pages cannot be rendered, or one of them cannot be read.
            ChordwiseError: See `Transcriber.transcribe`.
        """
        texts = transcriber.transcribe(self._pictures(), source)
        pages = [replace(page, text=texts.get(page.number, page.text)) for page in self._pages]
        whole, places = of_pages(pages)
        read: JsonObject = {"pages_transcribed": len(texts), "transcribed_by": transcriber.model}
        return Reply(
            header={**self._end.header, **(read if texts else {})},
            text=bytearray(whole.encode("utf-8", "surrogatepass")),
            places=encoded_places(places, normalize(whole).offsets()),
        )

    def _pictures(self) -> Iterator[Picture]:
        for reply in self._replies:
            if "what" in reply.header:
                raise protocol.failure(reply.header)
            if "page" not in reply.header:
                self._end = reply
                continue
            page = self._page(reply)
            self._pages.append(page)
            if page.picture is not None:
                yield page.picture

    def _page(self, reply: Reply) -> PageText:
        """Validate and return a page; the data may be controlled by a hostile file."""
        self._bytes_left -= _BYTES_PER_PAGE + len(reply.places)
        header, edge = reply.header, self._settings.max_vision_edge_pixels
        place = len(self._pages) + 1
        width, height = (number(header.get(name)) or 0.0 for name in ("width", "height"))
        pixels = header.get("pixels")
        if not isinstance(pixels, list):
            self._bytes_left -= len(reply.text)
            if self._bytes_left < 0:
                raise failures.too_many_characters(self._settings.max_characters)
            content = protocol.decoded(reply.text)
            return PageText(
                number=place, text=content, width=width, height=height, layout=reply.places
            )
        across, down = (min(edge, max(1, int(number(side) or 0))) for side in (*pixels, 0, 0)[:2])
        picture = Picture(number=place, data=bytes(reply.text), width=across, height=down)
        if sum(page.picture is not None for page in self._pages) >= self._settings.max_vision_pages:
            raise failures.too_many_pages(self._settings.max_vision_pages)
        return PageText(number=place, text="", width=width, height=height, picture=picture)


_NAME_CHARACTERS = 500
# A hostile archive could otherwise use the whole time limit for each of its parts.
_COSTLY = ("timeout", "parser_crashed", "memory")
_COSTLY_PARTS = 20


@dataclass(frozen=True, slots=True)
class _Origin:
    """The origin of a file: its source, its name, and the label of its part of a mail."""

    source: str
    name: str
    label: str = ""


class _Unpacking:
    """The documents of one file, within limits on their number, size and depth."""

    def __init__(
        self,
        settings: ReaderSettings,
        options: ReadOptions,
        parsers: Sequence[ParserProcess],
        reading_time: ReadingTime,
        transcriber: Transcriber | None,
    ) -> None:
        self._settings = settings
        self._options = options
        self._parsers = parsers
        self._time = reading_time
        self._transcriber = transcriber
        self._documents_left = settings.max_documents
        self._bytes_left = settings.max_unpacked_megabytes * MEGABYTE
        self._costly_left = _COSTLY_PARTS

    def documents(self, content: Content, source: str) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield the documents; if a limit ends the reading, the last item says so."""
        try:
            for document in self._documents(content, _Origin(source, source), 0):
                self._documents_left -= 1
                if self._documents_left < 0:
                    raise _too_much(
                        f"holds more than {self._settings.max_documents:,} documents; "
                        "the ones after them were left out.",
                        "Split it, or raise readers.max_documents.",
                        "too_many_documents",
                    )
                content.require_unchanged()
                yield document
        except _BoundReachedError as bound:
            yield _unread(source, bound.error, content)
        except ReadError as error:
            yield _unread(source, error, content)

    def part(self, content: Content, here: str, source: str, level: int = 0) -> Content | None:
        """Return the part with this source of a file named `here`; the caller closes it."""
        options = replace(self._options, name=here)
        with closing(self._parsers[level].replies(content.file, options, self._time)) as replies:
            for reply in replies:
                if reply.part is None:
                    continue
                name = f"{here}#{_name(reply.header.get('place'))}"
                try:
                    self._spend(reply.part.byte_count, level)
                except _BoundReachedError as bound:
                    reply.part.close()
                    raise bound.error from bound
                if name == source:
                    return reply.part
                with closing(reply.part):
                    if source.startswith(f"{name}#"):
                        return self.part(reply.part, name, source, level + 1)
        return None

    def _documents(
        self, content: Content, origin: _Origin, level: int
    ) -> Iterator[ReadDocument | UnreadDocument]:
        try:
            if not content.byte_count:
                raise failures.empty()
            for reply in self._replies(content, origin, level):
                yield from self._documents_of(reply, content, origin, level)
        except ReadError as error:
            if self._time.is_over:
                raise _BoundReachedError(
                    failures.unreadable(
                        f"took longer than {self._time.total:g} s to read; the rest was left out.",
                        "Unpack or split it and submit the parts that are wanted, "
                        "or raise readers.file_timeout_seconds.",
                        "file_timeout",
                    )
                ) from error
            self._count_costs(error)
            yield _unread(origin.source, error, content)

    def _replies(self, content: Content, origin: _Origin, level: int) -> Iterator[Reply]:
        parser, options = self._parsers[level], replace(self._options, name=origin.name)
        for reply in parser.replies(content.file, options, self._time):
            header = reply.header
            is_scanned = header.get("reason") == failures.NEEDS_OCR or header.get("pages_scanned")
            if is_scanned and (self._settings.ocr or self._transcriber is not None):
                seen = ("invisible_characters", "unseen", "is_covered", "fields_unread")
                known: JsonObject = {name: header.get(name) for name in seen}
                options = replace(options, known=known)
                yield from self._scan(parser, content.file, options, origin.source)
            else:
                yield reply

    def _scan(
        self, parser: ParserProcess, file: BinaryIO, options: ReadOptions, source: str
    ) -> Iterator[Reply]:
        if self._transcriber is not None:
            try:
                reply = self._transcribed(self._transcriber, parser, file, options, source)
            except ReadError as error:
                if error.reason != failures.VISION_FAILED or not self._settings.ocr:
                    raise
            else:
                yield reply
                return
        options = replace(
            options,
            ocr_data=str(tesseract_data_folder(self._settings)),
            timeout_seconds=self._settings.ocr_timeout_seconds,
        )
        for reply in parser.replies(file, options, self._time):
            yield replace(reply, header={**reply.header, "transcribed_by": TESSERACT})

    def _transcribed(
        self,
        transcriber: Transcriber,
        parser: ParserProcess,
        file: BinaryIO,
        options: ReadOptions,
        source: str,
    ) -> Reply:
        if importlib.util.find_spec("PIL") is None:
            raise failures.vision_missing()
        showing = replace(options, shown_pages=self._settings.max_vision_pages)
        pages = ShownPages(parser.replies(file, showing, self._time), self._settings)
        read = pages.read_by(transcriber, source)
        options = replace(options, is_text=True, known={**read.header, **options.known})
        with closing(contents.spooled([read.text])) as content:
            reply = parser.reply(content.file, options, self._time)
        return replace(reply, places=read.places)

    def _documents_of(
        self, reply: Reply, content: Content, origin: _Origin, level: int
    ) -> Iterator[ReadDocument | UnreadDocument]:
        header = reply.header
        place = _name(header.get("place"))
        here = f"{origin.source}#{place}" if place else origin.source
        if reply.part is not None:
            label = ", ".join(filter(None, (origin.label, _name(header.get("label")))))
            inner = _Origin(here, _name(header.get("name")), label)
            with closing(reply.part) as part:
                self._spend(part.byte_count, level)
                yield from self._documents(part, inner, level + 1)
            return
        file = None if place else content
        document = _document(reply, here, file, self._settings.max_characters, origin.label)
        if isinstance(document, UnreadDocument):
            self._count_costs(document.error)
        yield document

    def _spend(self, byte_count: int, level: int) -> None:
        if level + 1 == LEVELS:
            raise _too_much(
                f"has files nested {LEVELS} levels deep; the rest was left out.",
                "Unpack it and submit the folder.",
                "nested_too_deep",
            )
        self._bytes_left -= byte_count
        if self._bytes_left < 0:
            megabytes = self._settings.max_unpacked_megabytes
            raise _too_much(
                f"unpacks to more than {megabytes} MB; the rest was left out.",
                "Unpack it and submit the folder, or raise readers.max_unpacked_megabytes.",
                "unpacked_size",
            )

    def _count_costs(self, error: ReadError) -> None:
        if error.reason in _COSTLY:
            self._costly_left -= 1
        if not self._costly_left:
            raise _too_much(
                f"holds {_COSTLY_PARTS} parts that exceeded a limit or crashed the parser; "
                "the rest was left out.",
                "Unpack it and submit the parts that are wanted.",
                "too_many_failures",
            )


class _BoundReachedError(Exception):
    """A limit was reached; ends the reading of the whole file, from any depth."""

    def __init__(self, error: ReadError) -> None:
        super().__init__(error)
        self.error = error


def _too_much(what: str, hint: str, reason: str) -> _BoundReachedError:
    return _BoundReachedError(failures.too_large(what, hint, reason))


def _name(value: JsonValue) -> str:
    return printable(text(value))[:_NAME_CHARACTERS]
