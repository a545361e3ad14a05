"""Recognises what a file is, by its content first and by its name only where content is silent."""

from __future__ import annotations

import io
import re
import zipfile
from enum import StrEnum
from pathlib import PurePath

from chordwise.errors import ReadError
from chordwise.readers import failures


class Format(StrEnum):
    """The formats that have a reader."""

    PLAIN = "plain"
    MARKDOWN = "markdown"
    HTML = "html"
    PDF = "pdf"
    DOCX = "docx"
    EMAIL = "email"


_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_CONVERT = "Save it as DOCX or PDF first, for instance with LibreOffice."
_OCR = "Run it through OCR and submit the text."
_UNPACK = "Unpack it and submit the folder."
_EXPORT = "Export it to CSV or PDF first."

_FOREIGN = (
    (b"{\\rtf", "an RTF document", _CONVERT),
    (b"\xffWPC", "a WordPerfect document", _CONVERT),
    (b"\x89PNG\r\n", "an image (PNG)", _OCR),
    (b"\xff\xd8\xff", "an image (JPEG)", _OCR),
    (b"GIF8", "an image (GIF)", _OCR),
    (b"II*\0", "an image (TIFF)", _OCR),
    (b"MM\0*", "an image (TIFF)", _OCR),
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
_OLE_STREAMS = (
    ("WordDocument", "a Word document of the old format (.doc)", _CONVERT),
    ("Workbook", "an Excel workbook of the old format (.xls)", _EXPORT),
    ("PowerPoint Document", "a PowerPoint file of the old format (.ppt)", _CONVERT),
    ("__properties_version1.0", "an Outlook message (.msg)", "Save it as .eml first."),
)
_ZIP_MEMBERS = (
    ("xl/", "an Excel workbook", _EXPORT),
    ("ppt/", "a PowerPoint file", _CONVERT),
    ("visio/", "a Visio drawing", _CONVERT),
    ("META-INF/container.xml", "an EPUB book", "Convert it to HTML or PDF first."),
    ("content.xml", "an OpenDocument file", _CONVERT),
)
_HTML_NAMES = (".html", ".htm", ".xhtml", ".xht")
_MARKDOWN_NAMES = (".md", ".markdown", ".mdown", ".mkd")
_EMAIL_NAMES = (".eml",)
# Each step keeps what it took: a page of comments would cost exponential time otherwise.
_HTML_START = re.compile(
    rb"(?>\s+|<\?xml[^>]*>|<!--(?:(?!-->).)*-->)*+<(?:!doctype\s+html|html)\b", re.DOTALL
)
_EMAIL_START = re.compile(
    rb"(?:Return-Path|Received|Delivered-To|MIME-Version):[ \t]", re.IGNORECASE
)


def detect(data: bytes, name: str) -> Format:
    """Return the format of the content; `name` decides only among kinds of text.

    Raises:
        ReadError: The format has no reader, or the file is an encrypted container.
    """
    extension = PurePath(name.rstrip("~")).suffix.lower()
    if _is_pdf(data, extension):
        return Format.PDF
    if data.startswith(_ZIP):
        return _zip_format(data)
    if data.startswith(_OLE):
        raise _ole_failure(data)
    for magic, kind, remedy in _FOREIGN:
        if data.startswith(magic):
            raise failures.unsupported(kind, remedy)
    return _text_format(data, extension)


def _is_pdf(data: bytes, extension: str) -> bool:
    position = data[:1024].find(b"%PDF-")
    if position < 0:
        return False
    # A text may speak of PDF; a file with junk before its header also has the trailer.
    return not data[:position].strip() or extension == ".pdf" or b"startxref" in data


def _zip_format(data: bytes) -> Format:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise failures.malformed("is a damaged DOCX or ZIP file.") from error
    for start, kind, remedy in _ZIP_MEMBERS:
        if any(member.startswith(start) for member in names):
            raise failures.unsupported(kind, remedy)
    if "[Content_Types].xml" in names:
        return Format.DOCX
    raise failures.unsupported("a ZIP archive", _UNPACK)


def _ole_failure(data: bytes) -> ReadError:
    if "EncryptedPackage".encode("utf-16-le") in data:
        return failures.encrypted()
    for stream, kind, remedy in _OLE_STREAMS:
        if stream.encode("utf-16-le") in data:
            return failures.unsupported(kind, remedy)
    return failures.unsupported("an office document of an old format", _CONVERT)


def _text_format(data: bytes, extension: str) -> Format:
    if extension == ".pdf" and b"endobj" in data:
        return Format.PDF
    # Without the zero bytes and marks of UTF-16, which hide the ASCII of a tag.
    head = data[:4096].replace(b"\0", b"").lstrip(b"\xff\xfe\xef\xbb\xbf").lower()
    if extension in _HTML_NAMES or _HTML_START.match(head[:2048]):
        return Format.HTML
    if extension in _MARKDOWN_NAMES:
        return Format.MARKDOWN
    if extension in _EMAIL_NAMES or _EMAIL_START.match(head):
        return Format.EMAIL
    return Format.PLAIN
