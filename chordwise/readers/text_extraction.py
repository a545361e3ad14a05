"""Extraction of text from a file: detects the format, calls its reader, and checks the result."""

from __future__ import annotations

import io
import lzma
import mmap
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import PurePath
from typing import BinaryIO

import olefile

from chordwise.errors import ReadError
from chordwise.readers import (
    archives,
    docx,
    epub,
    failures,
    html,
    mail,
    ocr,
    open_document,
    outlook,
    pdf,
    plain,
    presentation,
    rich_text,
    scans,
    sheets,
    word97,
)
from chordwise.readers.limits import BYTES_PER_CHARACTER
from chordwise.readers.reader_output import (
    Extracted,
    Extraction,
    PageText,
    ReadOptions,
    Source,
    Unread,
)


class Format(StrEnum):
    """The formats that have a reader."""

    PLAIN = "plain"
    MARKDOWN = "markdown"
    HTML = "html"
    PDF = "pdf"
    DOCX = "docx"
    PPTX = "pptx"
    SHEETS = "sheets"
    OPEN_DOCUMENT = "open document"
    EPUB = "epub"
    RTF = "rtf"
    WORD_97 = "word 97"
    PICTURE = "picture"
    EMAIL = "email"
    OUTLOOK = "outlook"
    MAILBOX = "mailbox"
    ZIP = "zip"


_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP_END = b"PK\x05\x06"
_ZIP_END_BYTES = 65_558
_SPREADSHEET = b"opendocument.spreadsheet"
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
# Names in the root of an OLE container.
_OLD_PRESENTATION = "PowerPoint Document"
_OLE_FORMATS = (
    ("__properties_version1.0", Format.OUTLOOK),
    ("WordDocument", Format.WORD_97),
    ("Workbook", Format.SHEETS),
    ("Book", Format.SHEETS),
)
_OFFICE_FOLDERS = (("word/", Format.DOCX), ("xl/", Format.SHEETS), ("ppt/", Format.PPTX))
_HTML_NAMES = (".html", ".htm", ".xhtml", ".xht")
_MARKDOWN_NAMES = (".md", ".markdown", ".mdown", ".mkd")
_EMAIL_NAMES = (".eml",)
_MAILBOX_NAMES = (".mbox", ".mbx")
# Names of binary formats: a file with such a name and without a known signature is mislabeled.
_SIGNED_NAMES = (
    *(".pdf", ".docx", ".docm", ".pptx", ".pptm", ".xlsx", ".xlsm", ".xlsb", ".ods"),
    *(".odt", ".odp", ".epub", ".zip", ".png", ".jpg", ".jpeg", ".tif", ".tiff"),
)
# These are often text, HTML or a message, and mislabeled only if they are neither.
_OLD_NAMES = (".doc", ".xls", ".ppt", ".msg")
# Atomic groups, since a page of comments would otherwise take exponential time.
_HTML_START = re.compile(
    rb"(?>\s+|<\?xml[^>]*>|<!--(?:(?!-->).)*-->)*+<(?:!doctype\s+html|html)\b", re.DOTALL
)
_HEADER_START = re.compile(rb">?[A-Za-z][\w-]{1,60}:[ \t]")
_EMAIL_START = re.compile(
    rb"(?:Return-Path|Received|Delivered-To|MIME-Version):[ \t]", re.IGNORECASE
)


def detect(data: bytes, name: str) -> Format:
    """Detect the format of the content; `name` decides only among kinds of text.

    Raises:
        ReadError: The format has no reader, the file is an encrypted container, or the name is that
            of a binary format and the content is not.
    """
    extension = PurePath(name.rstrip("~")).suffix.lower()
    # Before PDF: the first file of an archive, right after the archive header, may be a PDF.
    if data.startswith(_ZIP):
        return _zip_format(io.BytesIO(data))
    if _is_pdf(data, extension):
        return Format.PDF
    if data.startswith(_OLE):
        return _ole_format(data)
    if data.startswith(b"{\\rtf"):
        return Format.RTF
    if scans.picture_kind(data):
        return Format.PICTURE
    if foreign := next((each for each in _FOREIGN if data.startswith(each[0])), None):
        raise failures.unsupported(*foreign[1:])
    if extension in _SIGNED_NAMES:
        raise failures.mislabeled(extension)
    return _text_format(data, extension)


def _is_pdf(data: bytes, extension: str) -> bool:
    position = data[:1024].find(b"%PDF-")
    if position < 0:
        return extension == ".pdf" and b"endobj" in data
    # A text may mention PDF; a file with junk before its header also has the trailer.
    return not data[:position].strip() or extension == ".pdf" or b"startxref" in data


def _zip_format(file: BinaryIO) -> Format:
    """Return the format of a file that begins like a ZIP archive."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            is_table = _SPREADSHEET in _mimetype(archive)
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, OSError) as error:
        if _ZIP_END not in _end(file):
            raise failures.truncated("an office file or ZIP archive") from error
        raise failures.malformed("is a damaged DOCX or ZIP file.") from error
    if "[Content_Types].xml" in names:
        return _office_format(names)
    if "META-INF/container.xml" in names:
        return Format.EPUB
    if "content.xml" in names and "META-INF/manifest.xml" in names:
        return Format.SHEETS if is_table else Format.OPEN_DOCUMENT
    return Format.ZIP


def _end(file: BinaryIO) -> bytes:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _ZIP_END_BYTES))
    return file.read()


def _mimetype(archive: zipfile.ZipFile) -> bytes:
    """Return the media type declared in an OpenDocument file (OpenDocument 1.3, part 2, §3.3)."""
    if "mimetype" not in archive.NameToInfo:
        return b""
    try:
        with archive.open("mimetype") as stream:
            return stream.read(200)
    except (RuntimeError, zlib.error, lzma.LZMAError):
        return b""  # encrypted or damaged, as its reader will report


def _office_format(names: Sequence[str]) -> Format:
    for folder, kind in _OFFICE_FOLDERS:
        if any(name.startswith(folder) for name in names):
            return kind
    if any(name.startswith("visio/") for name in names):
        raise failures.unsupported("a Visio drawing", failures.convert_to("pdf"))
    return Format.DOCX


def _ole_format(data: bytes) -> Format:
    holds = _ole_contents(data)
    if holds("EncryptedPackage"):
        raise failures.encrypted()
    for stream, format_found in _OLE_FORMATS:
        if holds(stream):
            return format_found
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


def _text_format(data: bytes, extension: str) -> Format:
    # Without the zero bytes and marks of UTF-16, so that ASCII tags match.
    head = data[:4096].replace(b"\0", b"").lstrip(b"\xff\xfe\xef\xbb\xbf").lower()
    if extension in _HTML_NAMES or _HTML_START.match(head[:2048]):
        return Format.HTML
    if extension in _MARKDOWN_NAMES:
        return Format.MARKDOWN
    if extension not in _EMAIL_NAMES and _opens_mailbox(data, extension):
        return Format.MAILBOX
    if extension in _EMAIL_NAMES or _EMAIL_START.match(head):
        return Format.EMAIL
    return Format.PLAIN


def _is_mailbox(head: bytes, name: str) -> bool:
    """Return whether a file is a mailbox, by its beginning, as it may be too large for memory."""
    return mail.SEPARATOR.match(head) is not None and detect(head, name) is Format.MAILBOX


def _opens_mailbox(data: bytes, extension: str) -> bool:
    opening = mail.SEPARATOR.match(data)
    if opening is None:
        return False
    following = data[opening.end() : opening.end() + 300].lstrip(b"\r\n")
    return extension in _MAILBOX_NAMES or bool(_HEADER_START.match(following))


_TEXTUAL: Mapping[Format, Callable[[bytes, str], Extracted]] = {
    Format.PLAIN: plain.read,
    Format.MARKDOWN: plain.read_markdown,
}
# Read from the file and not from memory, since its pictures may be large.
_PACKED: Mapping[Format, Callable[[Source, int], Extracted]] = {
    Format.DOCX: docx.read,
    Format.PPTX: presentation.read,
    Format.OPEN_DOCUMENT: open_document.read,
    Format.EPUB: epub.read,
}
_STRUCTURED: Mapping[Format, Callable[[bytes, int], Extracted]] = {
    Format.HTML: html.read,
    Format.PDF: pdf.read,
    Format.RTF: rich_text.read,
    Format.WORD_97: word97.read,
    Format.PICTURE: scans.refuse_picture,
}
_SCANS: Mapping[Format, Callable[[bytes], scans.Scan]] = {
    Format.PDF: scans.of_pdf,
    Format.PICTURE: scans.of_picture,
}
_CONTAINERS: Mapping[Format, Callable[[bytes, ReadOptions], Iterator[Extraction]]] = {
    Format.EMAIL: mail.documents,
    Format.OUTLOOK: outlook.documents,
    Format.SHEETS: sheets.documents,
}
_HEAD_BYTES = 4_096
_LONG_CHARACTERS, _MIN_SHARE_OF_SIGNS = 1_000_000, 0.01
_BLANK = " \t\r\n\f\v\0\ufeff\u00a0\u200b\u3000"


def extract(
    file: BinaryIO, name: str, wanted: ReadOptions
) -> Extracted | Iterator[Extraction | PageText]:
    """Return the text of a file, or its items if it contains several texts or files.

    For a scan with `wanted.shown`, the items are the pages, followed by an empty text. Archives,
    mailboxes and office documents are read in place; other files are loaded into memory. `name` is
    used only if the content does not determine the format.

    Raises:
        ReadError: No text can be extracted; also raised by the iterator.
    """
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if not head:
        raise failures.empty()
    if head.startswith(_ZIP):
        kind = _zip_format(file)
        file.seek(0)
        if kind is Format.ZIP:
            return _checked(archives.documents(file, wanted), wanted.max_characters)
        if kind in _PACKED:
            return _with_text(_PACKED[kind](file, wanted.max_characters), wanted.max_characters)
    elif _is_mailbox(head, name):
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        return _checked(mail.mailbox_documents(mapped, wanted), wanted.max_characters)
    data = file.read()
    return _of_bytes(data, detect(data, name), name, wanted)


def _of_bytes(
    data: bytes, kind: Format, name: str, wanted: ReadOptions
) -> Extracted | Iterator[Extraction | PageText]:
    if kind in _SCANS and wanted.shown is not None:
        return scans.rendered(_SCANS[kind](data), wanted.shown)
    if kind in _SCANS and wanted.ocr is not None:
        recognized = ocr.read(_SCANS[kind](data), wanted.max_characters, wanted.ocr)
        return _with_text(recognized, wanted.max_characters)
    if kind in _CONTAINERS:
        return _checked(_CONTAINERS[kind](data, wanted), wanted.max_characters)
    if kind in _TEXTUAL and len(data) > wanted.max_characters * BYTES_PER_CHARACTER:
        raise failures.too_many_characters(wanted.max_characters)
    if kind is Format.PLAIN and wanted.columns.text:
        found = sheets.documents_of_rows(data, name, wanted)
        if found is not None:
            return _checked(found, wanted.max_characters)
    return _with_text(_one(data, kind, name, wanted.max_characters), wanted.max_characters)


def _one(data: bytes, kind: Format, name: str, max_characters: int) -> Extracted:
    if kind not in _TEXTUAL:
        return _STRUCTURED[kind](data, max_characters)
    try:
        return _TEXTUAL[kind](data, name)
    except ReadError as error:
        extension = PurePath(name).suffix.lower()
        if error.reason == "binary" and extension in _OLD_NAMES:
            raise failures.mislabeled(extension) from error
        raise


def _checked(found: Iterator[Extraction], max_characters: int) -> Iterator[Extraction]:
    """Yield the items of a file, and replace items without text by errors."""
    is_empty = True
    for each in found:
        is_empty = False
        try:
            yield _with_text(each, max_characters) if isinstance(each, Extracted) else each
        except ReadError as error:
            yield Unread(place=each.place, error=error)
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
            raise failures.too_much_white_space(len(extracted.text))
    return extracted
