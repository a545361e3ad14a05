"""Reads Outlook messages (MSG): headers, body and attachments, including attached messages."""

from __future__ import annotations

import datetime as dt
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

import olefile

from chordwise.domain.places import MESSAGE
from chordwise.errors import ReadError
from chordwise.readers import encodings, failures
from chordwise.readers.formats import Format, html, of_items, rich_text
from chordwise.readers.formats.mail import text_of_message
from chordwise.readers.reader_output import (
    ContainedFile,
    Extracted,
    Extraction,
    Naming,
    ReadOptions,
    Unread,
)

MEDIA_TYPE = "application/vnd.ms-outlook"
PROPERTIES = "__properties_version1.0"
# The numbers of the properties of a message and an attachment ([MS-OXPROPS]).
_CLASS, _SUBJECT, _SUBMITTED = 0x001A, 0x0037, 0x0039
_SENDER, _SENDER_ADDRESS, _TO, _CC = 0x0C1A, 0x5D01, 0x0E04, 0x0E03
_BODY, _HTML, _RICH = 0x1000, 0x1013, 0x1009
_DATA, _NAMES, _METHOD_TYPE = 0x3701, (0x3707, 0x3704, 0x3001), "000D"
_UNICODE, _BYTES_OF_TEXT, _BINARY, _TIME = "001F", "001E", "0102", 0x0040
_PROTECTED_CLASSES = ("ipm.note.smime", "ipm.note.rpmsg")
_EPOCH = dt.datetime(1601, 1, 1, tzinfo=dt.UTC)
_ENTRY = struct.Struct("<IIQ")
_HEADER_BYTES, _NESTED_HEADER_BYTES = 32, 24
_NESTED = 8
_DAMAGES = (OSError, ValueError, IndexError, struct.error, KeyError, AttributeError, TypeError)


def documents(data: bytes, options: ReadOptions) -> Iterator[Extraction]:
    """Yield the text of the message, then its attachments."""
    try:
        with olefile.OleFileIO(io.BytesIO(data)) as container:
            yield from _Message(container, (), "", options).documents()
    except _DAMAGES as error:
        raise failures.malformed("is a damaged Outlook message.") from error


@dataclass(frozen=True, slots=True)
class _Message:
    """A message: the whole container, or for an attached message a storage in it."""

    container: olefile.OleFileIO
    folder: tuple[str, ...]
    place: str
    options: ReadOptions

    def documents(self) -> Iterator[Extraction]:
        try:
            yield self._text()
        except ReadError as error:
            if not self.place and error.outcome == "encrypted":
                raise
            yield Unread(place=self.place, error=error)
        naming = Naming()
        for folder in self._attachments():
            yield from self._attachment(folder, naming)

    def _text(self) -> Extracted:
        names = [self._name(folder) for folder in self._attachments()]
        self._require_legible(names)
        headers = {
            "From": self._sender(),
            "To": self._string(_TO),
            "Cc": self._string(_CC),
            "Date": self._date(),
            "Subject": self._string(_SUBJECT),
        }
        body = self._body()
        parts = [replace(body, text=body.text.strip())]
        label = f"attachment {self.place}" if self.place else MESSAGE
        return text_of_message(
            headers, parts, names, label, media_type=MEDIA_TYPE, place=self.place
        )

    def _require_legible(self, names: list[str]) -> None:
        protected = any(name.lower().endswith((".rpmsg", ".pgp-encrypted")) for name in names)
        message_class = self._string(_CLASS).lower()
        # A message that is only signed has one attachment, which is not encrypted.
        signed = message_class.endswith("multipartsigned")
        if protected or (message_class.startswith(_PROTECTED_CLASSES) and not signed):
            raise failures.encrypted()

    def _body(self) -> Extracted:
        """Return the body that a mail program displays: HTML, else plain text, else RTF."""
        limit = self.options.max_characters
        markup = self._stream(_HTML, _BINARY).rstrip(b"\0") or self._string(_HTML).encode()
        shown = html.read(markup, limit) if markup else None
        if shown is not None and shown.text:
            return shown
        if plain := self._string(_BODY):
            return Extracted(text=plain, media_type=MEDIA_TYPE)
        if packed := self._stream(_RICH, _BINARY):
            return rich_text.read(rich_text.decompressed(packed), limit)
        return shown or Extracted(text="", media_type=MEDIA_TYPE)

    def _sender(self) -> str:
        name, address = self._string(_SENDER), self._string(_SENDER_ADDRESS)
        return f"{name} <{address}>" if name and address and name != address else name or address

    def _date(self) -> str:
        path = [*self.folder, PROPERTIES]
        if not self.container.exists(path):
            return ""
        table = self.container.openstream(path).read()
        start = _NESTED_HEADER_BYTES if self.folder else _HEADER_BYTES
        whole = len(table) - (len(table) - start) % _ENTRY.size
        for tag, _flags, value in _ENTRY.iter_unpack(table[start:whole]):
            if tag == _SUBMITTED << 16 | _TIME:
                return str(_EPOCH + dt.timedelta(microseconds=value // 10))[:19] + " UTC"
        return ""

    def _attachments(self) -> list[tuple[str, ...]]:
        depth = len(self.folder)
        entries = self.container.listdir(streams=False, storages=True)
        return [
            tuple(entry)
            for entry in entries
            if len(entry) == depth + 1
            and tuple(entry[:depth]) == self.folder
            and entry[depth].startswith("__attach_version1.0_")
        ]

    def _attachment(self, folder: tuple[str, ...], naming: Naming) -> Iterator[Extraction]:
        name = self._name(folder) or "attachment"
        label = naming.place(name)
        place = f"{self.place}/{label}" if self.place else label
        message = (*folder, f"__substg1.0_{_DATA:04X}{_METHOD_TYPE}")
        if self.container.exists([*message, PROPERTIES]):
            if len(message) > _NESTED * 2:
                yield Unread(place=place, error=failures.malformed("is nested too deeply."))
                return
            yield from _Message(self.container, message, place, self.options).documents()
            return
        data = self._stream(_DATA, _BINARY, folder)
        yield ContainedFile(place=place, name=name, pieces=(data,), label=f"attachment {place}")

    def _name(self, folder: tuple[str, ...]) -> str:
        names = (self._string(number, folder) for number in _NAMES)
        return next((name for name in names if name), "")

    def _string(self, number: int, folder: tuple[str, ...] | None = None) -> str:
        wide = self._stream(number, _UNICODE, folder)
        if wide:
            return wide.decode("utf-16-le", "replace").strip("\0")
        narrow = self._stream(number, _BYTES_OF_TEXT, folder).strip(b"\0")
        return encodings.decode(narrow).text if narrow else ""

    def _stream(self, number: int, kind: str, folder: tuple[str, ...] | None = None) -> bytes:
        path = [*(self.folder if folder is None else folder), f"__substg1.0_{number:04X}{kind}"]
        if not self.container.exists(path):
            return b""
        return bytes(self.container.openstream(path).read())


FORMAT = Format("MSG", of_items(documents), streams=(PROPERTIES,))
