"""The parser process: receives files on its standard input, and answers one after another.

It is started by `parser_process` and has no access to settings, secrets and file paths. The content
of a file decides which reader extracts its text.
"""

from __future__ import annotations

import io
import lzma
import os
import socket
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import BinaryIO

import olefile

from chordwise.domain.json_values import JsonObject
from chordwise.errors import ReadError
from chordwise.readers import failures, limits, protocol
from chordwise.readers.formats import FORMATS, mailbox, pdf, picture
from chordwise.readers.reader_output import (
    Extracted,
    Extraction,
    PageText,
    ReadOptions,
    Unread,
    leaves_out_unseen,
)


def main() -> None:
    """Serve until the parent closes the channel."""
    list(FORMATS.values())  # imports them, before the memory is limited
    limits.limit_process(int(sys.argv[1]))
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as channel:
        try:
            protocol.send(channel, {"ready": True}, b"")
            while True:
                _serve(channel)
        except ConnectionError:
            return
        except MemoryError:
            # Out of memory outside of the parser: no answer can be sent.
            sys.exit(limits.OUT_OF_MEMORY_STATUS)


def _serve(channel: socket.socket) -> None:
    file, options = protocol.receive_request(channel)
    with file:
        limits.limit_file(options.timeout_seconds)
        for header, body in _frames(file, options):
            # The limit applies to each answer, without the time that the parent needs to store it.
            limits.release_file()
            protocol.send(channel, header, body)
            limits.limit_file(options.timeout_seconds)
        limits.release_file()


def _frames(file: BinaryIO, options: ReadOptions) -> Iterator[tuple[JsonObject, bytes]]:
    leaves_out_unseen.set(options.leaves_out_unseen)
    try:
        if options.page:
            data = file.read()
            draw = picture.picture_of if picture.kind_of(data) else pdf.picture_of
            page = draw(data, options.page)
            yield {"width": page.width, "height": page.height, "last": True}, bytes(page.pixels)
            return
        if options.is_text:
            extracted: Extracted | Iterator[Extraction | PageText] = Extracted(
                text=protocol.decoded(file.read()), media_type=""
            )
        else:
            extracted = extract(file, options)
        if isinstance(extracted, Extracted):
            header, body = protocol.text_frame(extracted, options)
            yield {**header, "last": True}, body
            return
        for extraction in extracted:
            yield from protocol.frames_of(extraction, options)
        yield {"end": True, "last": True}, b""
    except ReadError as error:
        yield _last(error), b""
    except MemoryError:
        yield _last(failures.out_of_memory()), b""
    except Exception as error:  # noqa: BLE001 - the outermost shell: parsers raise anything
        what = f"cannot be read: its parser stopped with {type(error).__name__}."
        yield _last(failures.malformed(what)), b""


def _last(error: ReadError) -> JsonObject:
    return {**protocol.failure_header(error), "last": True}


_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP_END = b"PK\x05\x06"
_ZIP_END_BYTES = 65_558
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_UNPACK = "Unpack it and submit the folder."
_EXPORT = "Export it to CSV or PDF first."

_FOREIGN = (
    (b"\xffWPC", "a WordPerfect document", failures.convert_to("docx")),
    (b"GIF8", "an image (GIF)", "Save it as PNG first."),
    (b"%!PS", "a PostScript file", "Convert it to PDF first."),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (b"SQLite format 3\0", "an SQLite database", _EXPORT),
    (b"PAR1", "a Parquet file", _EXPORT),
    (b"\x7fELF", "a program", ""),
    (b"MZ\x90", "a program", ""),
)
_OLD_PRESENTATION = "PowerPoint Document"


def detect(data: bytes, name: str) -> str:
    """Return the name of the format of the content; `name` decides only among kinds of text.

    Raises:
        ReadError: The format has no reader, the file is an encrypted container, or the name is that
            of a binary format and the content is not.
    """
    extension = _extension(name)
    # Before PDF: the first file of an archive, right after the archive header, may be a PDF.
    if data.startswith(_ZIP):
        return _zip_format(io.BytesIO(data))
    ranked = sorted(FORMATS.items(), key=lambda item: item[1].rank)
    matching = (item for item in ranked if item[1].matches and item[1].matches(data, extension))
    kind, detected = next(matching)
    if not detected.rank:
        return kind
    if data.startswith(_OLE):
        return _ole_format(data)
    if foreign := next((row for row in _FOREIGN if data.startswith(row[0])), None):
        raise failures.unsupported(*foreign[1:])
    if any(extension in format_.extensions for format_ in FORMATS.values()):
        raise failures.mislabeled(extension)
    return kind


def _extension(name: str) -> str:
    return PurePath(name.rstrip("~")).suffix.lower()


def _zip_format(file: BinaryIO) -> str:
    """Return the format of a file that begins like a ZIP archive."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [*archive.namelist(), f"mimetype:{_mimetype(archive)}"]
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, OSError) as error:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _ZIP_END_BYTES))
        if _ZIP_END not in file.read():
            raise failures.truncated("an office file or ZIP archive") from error
        raise failures.malformed("is a damaged DOCX or ZIP file.") from error
    if "[Content_Types].xml" in names and any(name.startswith("visio/") for name in names):
        raise failures.unsupported("a Visio drawing", failures.convert_to("pdf"))
    ranked = (
        (len(parts), kind)
        for kind, format_ in FORMATS.items()
        for parts in format_.parts
        if all(any(name.startswith(part) for name in names) for part in parts)
    )
    return max(ranked)[1]


def _mimetype(archive: zipfile.ZipFile) -> str:
    """Return the media type declared in an OpenDocument file (OpenDocument 1.3, part 2, §3.3)."""
    if "mimetype" not in archive.NameToInfo:
        return ""
    try:
        with archive.open("mimetype") as stream:
            return stream.read(200).decode("latin-1").strip()
    except (RuntimeError, zlib.error, lzma.LZMAError):
        return ""  # encrypted or damaged, as its reader will report


def _ole_format(data: bytes) -> str:
    holds = _ole_contents(data)
    if holds("EncryptedPackage"):
        raise failures.encrypted()
    for kind, format_ in FORMATS.items():
        if any(map(holds, format_.streams)):
            return kind
    if holds(_OLD_PRESENTATION):
        kind = "a PowerPoint file of the old format (.ppt)"
        raise failures.unsupported(kind, failures.convert_to("pptx"))
    kind = "an office document of an old format"
    raise failures.unsupported(kind, failures.convert_to("pdf"))


def _ole_contents(data: bytes) -> Callable[[str], bool]:
    """Return a check for names in the root; in a damaged file, names anywhere count."""
    try:
        with olefile.OleFileIO(io.BytesIO(data)) as container:
            names = {entry[0] for entry in container.listdir(streams=True, storages=True)}
    except (OSError, ValueError, IndexError, TypeError, AttributeError, struct.error):
        return lambda name: name.encode("utf-16-le") in data
    return names.__contains__


_HEAD_BYTES = 4_096
_LONG_CHARACTERS, _MIN_SHARE_OF_SIGNS = 1_000_000, 0.01
_BLANK = " \t\r\n\f\v\0\ufeff\u00a0\u200b\u3000"


def extract(file: BinaryIO, options: ReadOptions) -> Extracted | Iterator[Extraction | PageText]:
    """Return the text of a file, or its items if it contains several texts or files.

    For a scan with `shown_pages`, the items are the pages, followed by an empty text. Archives,
    mailboxes and office documents are read in place; other files are loaded into memory. The name
    is used only if the content does not determine the format.

    Raises:
        ReadError: No text can be extracted; also raised by the iterator.
    """
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if not head:
        raise failures.empty()
    if head.startswith(_ZIP):
        kind = _zip_format(file)
    elif mailbox.matches(head, _extension(options.name)):
        kind = detect(head, options.name)
    else:
        kind = detect(file.read(), options.name)
    file.seek(0)
    scan, limit = FORMATS[kind].scan, options.max_characters
    if scan and options.shown_pages:
        return picture.rendered(scan(file.read()), options)
    if scan and options.ocr_data:
        return _with_text(picture.recognized(scan(file.read()), options), limit)
    read = FORMATS[kind].read(file, options)
    return _with_text(read, limit) if isinstance(read, Extracted) else _checked(read, limit)


def _checked(items: Iterator[Extraction], max_characters: int) -> Iterator[Extraction]:
    """Yield the items of a file, and replace items without text by errors."""
    is_empty = True
    for item in items:
        is_empty = False
        try:
            yield _with_text(item, max_characters) if isinstance(item, Extracted) else item
        except ReadError as error:
            yield Unread(place=item.place, error=error)
    if is_empty:
        raise failures.empty()


def _with_text(extracted: Extracted, max_characters: int) -> Extracted:
    """Return a text after checking that it is neither empty, nor nearly so, nor too long."""
    if len(extracted.text) > max_characters:
        raise failures.too_many_characters(max_characters)
    if not extracted.text.strip(_BLANK):
        raise failures.empty()
    if len(extracted.text) > _LONG_CHARACTERS:
        blank = sum(map(extracted.text.count, _BLANK))
        if len(extracted.text) - blank < _MIN_SHARE_OF_SIGNS * len(extracted.text):
            raise failures.too_large(
                f"holds {len(extracted.text):,} characters, nearly all of them white space.",
                "Remove the blank lines and columns, or leave it out.",
                "white_space",
            )
    return extracted


if __name__ == "__main__":
    main()
