"""Reading of files into text: the interface of the readers to the rest of Chordwise."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import BinaryIO, Self

from chordwise.domain.json_values import JsonObject, JsonValue, integer, number, text
from chordwise.domain.pictures import Picture
from chordwise.domain.text_normalization import normalize
from chordwise.domain.visible_text import printable
from chordwise.errors import ReadError
from chordwise.readers import contents, failures
from chordwise.readers.capacity import ReadingInterruptedError, ReadingTime, limits
from chordwise.readers.contents import Content
from chordwise.readers.limits import BYTES_PER_CHARACTER, MEGABYTE
from chordwise.readers.parser_process import FileRequest, ParserProcess, ParserReply
from chordwise.readers.read_documents import (
    ReadDocument,
    ReadText,
    UnreadDocument,
    checked,
    decoded,
    failure,
    with_places,
)
from chordwise.readers.reader_output import (
    WHOLE,
    Columns,
    PageText,
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


class Reader:
    """Converts files to text in child processes with limits, which are started with the first file.

    Not thread-safe; a file must be read to its end, or abandoned, before the next one is begun.
    Close the reader, or use it as a context manager.
    """

    def __init__(self, settings: ReaderSettings) -> None:
        self._settings = settings
        self._limits = limits(settings)
        self._interruption = Event()
        self._parsers = ParserProcess(settings, self._limits)
        # For nested files: each level has a separate process.
        self._inner: list[ParserProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child processes; the next file starts new ones."""
        for parser in (self._parsers, *self._inner):
            parser.stop()

    def interrupt(self) -> None:
        """Interrupt the reading of the current file, which raises ReadingInterruptedError there."""
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
        transcriber: Transcriber | None = None,
    ) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield the documents of a regular file, at least one; errors are yielded as values.

        A message is followed by its attachments, a mailbox and an archive are replaced by their
        contents, and a table may be one document for each row (`columns`). `source` is printable.
        Exceptions of the `transcriber`, which reads pages without text, are propagated.

        Raises:
            ReadingInterruptedError: See `interrupt`.
        """
        self._interruption.clear()
        source = source or printable(str(path))
        megabytes = self._limits.max_file_megabytes
        try:
            file = contents.opened(path, megabytes, follow_symlinks=follow_symlinks)
            with file:
                content = contents.content_of_file(file, megabytes)
                yield from self._unpacking(columns, transcriber).documents(content, source)
        except ReadError as error:
            yield UnreadDocument(source=source, error=failures.named(source, error))

    def documents_from(
        self,
        stream: BinaryIO,
        name: str,
        columns: Columns = WHOLE,
        transcriber: Transcriber | None = None,
    ) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield the documents of a stream, read to its end; `name` distinguishes kinds of text."""
        self._interruption.clear()
        source = printable(name)
        try:
            limited = _limited(contents.slices(stream), self._limits.max_file_megabytes)
            with closing(contents.spooled(limited)) as content:
                yield from self._unpacking(columns, transcriber).documents(content, source)
        except ReadError as error:
            yield UnreadDocument(source=source, error=failures.named(source, error))

    def documents_in(self, data: bytes, name: str) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield the documents of content in memory; `name` distinguishes kinds of text."""
        return self.documents_from(io.BytesIO(data), name)

    def read(
        self, path: Path, *, follow_symlinks: bool = True, transcriber: Transcriber | None = None
    ) -> ReadDocument | UnreadDocument:
        """Return the first document of a file, which for most files is the only one."""
        found = self.read_documents(path, follow_symlinks=follow_symlinks, transcriber=transcriber)
        return next(found)

    def read_bytes(self, data: bytes, name: str) -> ReadDocument | UnreadDocument:
        """Return the first document of content in memory."""
        return next(self.documents_in(data, name))

    def read_text(self, content: str, source: str) -> ReadDocument | UnreadDocument:
        """Return a text that is not in a file, normalized and scanned like that of a file."""
        self._interruption.clear()
        data = content.encode("utf-8", "surrogatepass")
        question = FileRequest(name="", is_text=True, known={"media_type": "text/plain"})
        try:
            with closing(contents.spooled([data])) as spooled:
                [answer] = self._parsers.answers(spooled.file, question, self._reading_time())
                return self._unpacking().document(answer, source, spooled)
        except ReadError as error:
            return UnreadDocument(source=source, error=failures.named(source, error))

    def picture(self, file: BinaryIO, page: int) -> RenderedPage:
        """Render a page of an open PDF or picture; pages count from 1.

        Raises:
            ReadError: The file is neither or damaged, or has no such page.
            ReadingInterruptedError: See `interrupt`.
        """
        self._interruption.clear()
        question = FileRequest(name="", page=page)
        answers = list(self._parsers.answers(file, question, self._reading_time()))
        header = answers[0].header if answers else {}
        if "what" in header:
            raise failure(header)
        width, height = (integer(header.get(name)) or 0 for name in ("width", "height"))
        found = RenderedPage(width=width, height=height, pixels=answers[0].text if answers else b"")
        if not found.is_complete:
            raise failures.malformed(f"has no page {page} that can be shown.")
        return found

    def part(self, file: BinaryIO, source: str, within: str) -> Content | None:
        """Return the part of an archive or message named `source`; close it after use.

        `within` is the name of the file, with which `source` begins. A missing part is `None`.

        Raises:
            ReadError: The file cannot be unpacked, or exceeds the limits.
            ReadingInterruptedError: See `interrupt`.
        """
        self._interruption.clear()
        content = Content(file=file, sha256="", byte_count=0)
        return self._unpacking().part(content, within, source)

    def _unpacking(
        self, columns: Columns = WHOLE, transcriber: Transcriber | None = None
    ) -> _Unpacking:
        reading_time = self._reading_time()
        return _Unpacking(self._settings, columns, self._parser_at, reading_time, transcriber)

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


TESSERACT = "tesseract"
"""The value of `transcribed_by` for text recognized by OCR."""


_BYTES_PER_PAGE = 1_000


class ShownPages:
    """The pages of a scan from its parser: pictures to be read, and pages with text."""

    def __init__(self, answers: Iterator[ParserReply], settings: ReaderSettings) -> None:
        self._answers = answers
        self._settings = settings
        self._pages: list[PageText] = []
        self._end = ParserReply(header={})
        self._bytes_left = settings.max_characters * BYTES_PER_CHARACTER

    def pictures(self) -> Iterator[Picture]:
        """Yield the pictures in the order of the pages.

        Raises:
            ReadError: The pages cannot be rendered.
        """
        for answer in self._answers:
            if "what" in answer.header:
                raise failure(answer.header)
            if "page" not in answer.header:
                self._end = answer
                continue
            page = self._page(answer)
            self._pages.append(page)
            if page.picture is not None:
                yield page.picture

    def read_by(self, transcriber: Transcriber, source: str) -> ParserReply:
        """Return the text of all pages in the form of a parser answer.

        Raises:
            ReadError: The pages cannot be rendered, or one of them cannot be read.
            ChordwiseError: See `Transcriber.transcribe`.
        """
        texts = transcriber.transcribe(self.pictures(), source)
        pages = [replace(each, text=texts.get(each.number, each.text)) for each in self._pages]
        whole, places = of_pages(pages)
        body = bytearray(whole.encode("utf-8", "surrogatepass"))
        read: JsonObject = {"pages_transcribed": len(texts), "transcribed_by": transcriber.model}
        header = {**self._end.header, **(read if texts else {})}
        offset = normalize(whole).offsets()
        return ParserReply(header=header, text=body, places=encoded_places(places, offset))

    def _page(self, answer: ParserReply) -> PageText:
        """Validate and return a page; the data may be controlled by a hostile file."""
        self._bytes_left -= _BYTES_PER_PAGE + len(answer.places)
        header, edge = answer.header, self._settings.max_vision_edge_pixels
        place = len(self._pages) + 1
        width, height = (number(header.get(name)) or 0.0 for name in ("width", "height"))
        pixels = header.get("pixels")
        if not isinstance(pixels, list):
            self._bytes_left -= len(answer.text)
            if self._bytes_left < 0:
                raise failures.too_many_characters(self._settings.max_characters)
            text, layout = decoded(answer.text), answer.places
            return PageText(number=place, text=text, width=width, height=height, layout=layout)
        across, down = (min(edge, max(1, int(number(each) or 0))) for each in (*pixels, 0, 0)[:2])
        picture = Picture(number=place, data=bytes(answer.text), width=across, height=down)
        if sum(each.picture is not None for each in self._pages) >= self._settings.max_vision_pages:
            raise failures.too_many_pages(self._settings.max_vision_pages)
        return PageText(number=place, text="", width=width, height=height, picture=picture)


LEVELS = 6
"""The maximum nesting of files, as in: mailbox, message, attached message, archive, file."""
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
        columns: Columns,
        parser_at: Callable[[int], ParserProcess],
        reading_time: ReadingTime,
        transcriber: Transcriber | None,
    ) -> None:
        self._settings = settings
        self._time = reading_time
        self._transcriber = transcriber
        self._columns = columns
        self._parser_at = parser_at
        self._documents_left = settings.max_documents
        self._bytes_left = settings.max_unpacked_megabytes * MEGABYTE
        self._costly_left = _COSTLY_PARTS

    def documents(self, content: Content, source: str) -> Iterator[ReadDocument | UnreadDocument]:
        """Yield the documents; if a limit ends the reading, the last item says so."""
        try:
            for found in self._documents(content, _Origin(source, source), 0):
                self._count_document()
                content.require_unchanged()
                yield found
        except _BoundReachedError as bound:
            yield _unread(source, bound.error, content)
        except ReadError as error:
            yield _unread(source, error, content)

    def part(self, content: Content, here: str, source: str, level: int = 0) -> Content | None:
        """Return the part with this source of a file named `here`; the caller closes it."""
        question = FileRequest(name=here)
        with closing(self._parser_at(level).answers(content.file, question, self._time)) as answers:
            for answer in answers:
                if answer.part is None:
                    continue
                name = f"{here}#{_name(answer.header.get('place'))}"
                try:
                    self._spend(answer.part.byte_count, level)
                except _BoundReachedError as bound:
                    answer.part.close()
                    raise bound.error from bound
                if name == source:
                    return answer.part
                with closing(answer.part):
                    if source.startswith(f"{name}#"):
                        return self.part(answer.part, name, source, level + 1)
        return None

    def _documents(
        self, content: Content, origin: _Origin, level: int
    ) -> Iterator[ReadDocument | UnreadDocument]:
        try:
            if not content.byte_count:
                raise failures.empty()
            for answer in self._answers(content, origin, level):
                yield from self._answered(answer, content, origin, level)
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

    def _answers(self, content: Content, origin: _Origin, level: int) -> Iterator[ParserReply]:
        parser = self._parser_at(level)
        question = FileRequest(name=origin.name, columns=self._columns)
        for answer in parser.answers(content.file, question, self._time):
            header = answer.header
            is_scanned = header.get("reason") == failures.NEEDS_OCR or header.get("pages_scanned")
            if is_scanned and (self._settings.ocr or self._transcriber is not None):
                ask = partial(parser.answers, reading_time=self._time)
                seen = {
                    name: header.get(name)
                    for name in ("invisible_characters", "unseen", "is_covered")
                }
                question = replace(question, known=seen)
                yield from self._scan(ask, content.file, question, origin.source)
            else:
                yield answer

    def _scan(
        self,
        ask: Callable[[BinaryIO, FileRequest], Iterator[ParserReply]],
        file: BinaryIO,
        question: FileRequest,
        source: str,
    ) -> Iterator[ParserReply]:
        if self._transcriber is not None:
            try:
                if importlib.util.find_spec("PIL") is None:
                    raise failures.vision_missing()
                pages = ask(file, replace(question, shows_pages=True))
                read = ShownPages(pages, self._settings).read_by(self._transcriber, source)
                known = {**read.header, **question.known}
                with closing(contents.spooled([read.text])) as text:
                    [answer] = ask(text.file, FileRequest(name="", is_text=True, known=known))
                answer = replace(answer, places=read.places)
            except ReadError as error:
                if error.reason != failures.VISION_FAILED or not self._settings.ocr:
                    raise
            else:
                yield answer
                return
        recognized: JsonObject = {"transcribed_by": TESSERACT}
        question = replace(question, ocr_data=str(tesseract_data_folder(self._settings)))
        for answer in ask(file, question):
            yield replace(answer, header={**answer.header, **recognized})

    def _answered(
        self, answer: ParserReply, content: Content, origin: _Origin, level: int
    ) -> Iterator[ReadDocument | UnreadDocument]:
        header = answer.header
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
            yield self.document(answer, here, own, origin.label)

    def document(
        self, answer: ParserReply, source: str, content: Content | None, within: str = ""
    ) -> ReadDocument | UnreadDocument:
        """Return a text as a document; one without its own file has the hash of the text."""
        sha256 = content.sha256 if content else hashlib.sha256(answer.text).hexdigest()
        byte_count = content.byte_count if content else len(answer.text)
        try:
            if "what" in answer.header:
                raise failure(answer.header)
            text = checked(answer.header, answer.text, self._settings.max_characters)
            text = with_places(text, answer.places, within)
        except ReadError as error:
            named = failures.named(source, error)
            return UnreadDocument(source=source, error=named, sha256=sha256, byte_count=byte_count)
        return ReadDocument(source=source, sha256=sha256, byte_count=byte_count, content=text)

    def _spend(self, byte_count: int, level: int) -> None:
        if level + 1 == LEVELS:
            raise _bound_reached(
                f"has files nested {LEVELS} levels deep; the rest was left out.",
                "Unpack it and submit the folder.",
                "nested_too_deep",
            )
        self._bytes_left -= byte_count
        if self._bytes_left < 0:
            megabytes = self._settings.max_unpacked_megabytes
            raise _bound_reached(
                f"unpacks to more than {megabytes} MB; the rest was left out.",
                "Unpack it and submit the folder, or raise readers.max_unpacked_megabytes.",
                "unpacked_size",
            )

    def _count_document(self) -> None:
        if not self._documents_left:
            limit = self._settings.max_documents
            raise _bound_reached(
                f"holds more than {limit:,} documents; the ones after them were left out.",
                "Split it, or raise readers.max_documents.",
                "too_many_documents",
            )
        self._documents_left -= 1

    def _count_costs(self, error: ReadError) -> None:
        if error.reason in _COSTLY:
            self._costly_left -= 1
        if not self._costly_left:
            raise _bound_reached(
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


def _bound_reached(what: str, hint: str, reason: str) -> _BoundReachedError:
    return _BoundReachedError(failures.too_large(what, hint, reason))


def _name(value: JsonValue) -> str:
    return printable(text(value))[:_NAME_CHARACTERS]


def _unread(source: str, error: ReadError, content: Content | None) -> UnreadDocument:
    return UnreadDocument(
        source=source,
        error=failures.named(source, error),
        sha256=None if content is None else content.sha256,
        byte_count=None if content is None else content.byte_count,
    )
