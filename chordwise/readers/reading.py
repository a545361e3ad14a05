"""Reads files into text: the one thing that the rest of Chordwise knows about readers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from chordwise.domain.json_values import JsonObject, JsonValue, text
from chordwise.domain.states import IntakeOutcome
from chordwise.domain.text_normalization import normalize
from chordwise.errors import ReadError
from chordwise.readers import failures
from chordwise.readers.loading import load
from chordwise.readers.parser_process import ParserProcess
from chordwise.readers.printable_names import printable
from chordwise.settings import ReaderSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadText:
    """A normalised text and what is known of it.

    `pages` and `encoding` are `None` where the format has none; `pages_unread` counts damaged
    pages whose text is missing. The counts say how often normalisation changed something.
    """

    text: str
    media_type: str
    title: str = ""
    encoding: str | None = None
    pages: int | None = None
    pages_unread: int = 0
    nul_removed: int = 0
    surrogates_replaced: int = 0
    line_ends_changed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadDocument:
    """A file that became text; `sha256` (hexadecimal) and `byte_count` are of its bytes."""

    source: str
    sha256: str
    byte_count: int
    content: ReadText


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadDocument:
    """A file that did not become text, and why; hash and size are `None` if it was not opened."""

    source: str
    error: ReadError
    sha256: str | None = None
    byte_count: int | None = None


class Reader:
    """Turns files into text, in a child process with limits that starts with the first file.

    Not for sharing between threads. Close it, or use it as a context manager.
    """

    def __init__(self, settings: ReaderSettings) -> None:
        self._settings = settings
        self._parsers = ParserProcess(settings)

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
        """End the child process; the next file would start another."""
        self._parsers.stop()

    def read(self, path: Path, *, follow_symlinks: bool = True) -> ReadDocument | UnreadDocument:
        """Read a regular file; whatever is wrong with it is a value, not an exception."""
        source = printable(str(path))
        try:
            limit = self._settings.max_file_megabytes
            data = load(path, limit, follow_symlinks=follow_symlinks)
        except ReadError as error:
            return UnreadDocument(source=source, error=failures.named(source, error))
        return self.read_bytes(data, str(path))

    def read_bytes(self, data: bytes, name: str) -> ReadDocument | UnreadDocument:
        """Read content that is in memory; `name` tells kinds of text apart."""
        source = printable(name)
        sha256 = hashlib.sha256(data).hexdigest()
        try:
            content = self._content(data, source)
        except ReadError as error:
            return UnreadDocument(
                source=source,
                error=failures.named(source, error),
                sha256=sha256,
                byte_count=len(data),
            )
        return ReadDocument(source=source, sha256=sha256, byte_count=len(data), content=content)

    def _content(self, data: bytes, source: str) -> ReadText:
        if not data:
            raise failures.empty()
        if len(data) > self._settings.max_file_megabytes * 1024 * 1024:
            raise failures.larger_than(self._settings.max_file_megabytes)
        header, body = self._parsers.ask(data, source)
        if "what" in header:
            raise _failure(header)
        return _checked(header, body, self._settings.max_characters)


def _failure(header: JsonObject) -> ReadError:
    outcome = text(header.get("outcome"))
    known = outcome in list(IntakeOutcome)
    return ReadError(
        printable(text(header.get("what"))),
        printable(text(header.get("hint"))),
        IntakeOutcome(outcome) if known else IntakeOutcome.UNREADABLE,
        printable(text(header.get("reason"))),
    )


def _checked(header: JsonObject, body: bytes, max_characters: int) -> ReadText:
    """Take nothing on trust from a process that a hostile file may have taken over."""
    normalized = normalize(body.decode("utf-8", "replace"))
    if len(normalized.text) > max_characters:
        raise failures.too_many_characters(max_characters)
    if not normalized.text.strip():
        raise failures.empty()
    return ReadText(
        text=normalized.text,
        media_type=_line(header.get("media_type")),
        title=_line(header.get("title")),
        encoding=_line(header.get("encoding")) or None,
        pages=_count(header.get("pages")),
        pages_unread=_count(header.get("pages_unread")) or 0,
        nul_removed=normalized.nul_removed,
        surrogates_replaced=normalized.surrogates_replaced,
        line_ends_changed=normalized.line_ends_changed,
    )


def _line(value: JsonValue) -> str:
    return " ".join(normalize(text(value)).text.split())


def _count(value: JsonValue) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
