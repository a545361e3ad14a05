"""Files are recognised by what they contain."""

from __future__ import annotations

import time

import pytest

from chordwise.errors import ReadError
from chordwise.readers.formats import Format, detect
from tests.fakes.office_files import archive, document, docx, paragraph, pdf, shown

DOCX = docx(document(paragraph("x")))
PDF = pdf([shown("x")])
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (PDF, "a.txt", Format.PDF),
        (b"HTTP junk\r\n" + PDF, "a", Format.PDF),
        (DOCX, "a.pdf", Format.DOCX),
        (b"text", "a.txt", Format.PLAIN),
        (b"A text about %PDF-1.7 headers.", "a.txt", Format.PLAIN),
        (b"text", "a.doc", Format.PLAIN),
        (b"text", "a.pdf", Format.PLAIN),
        (PDF.removeprefix(b"%PDF-"), "a.pdf", Format.PDF),
        (b"# Title", "a.MD", Format.MARKDOWN),
        (b"<!-- c --><!DOCTYPE HTML><p>x", "a.txt", Format.HTML),
        ("<html><p>x".encode("utf-16"), "a", Format.HTML),
        (b"<p>x", "a.htm", Format.HTML),
        (b"<note><to>x</to></note>", "a.xml", Format.PLAIN),
        (b"Return-Path: <a@b.example>\nSubject: x\n\nx", "a", Format.EMAIL),
    ],
)
def test_content_decides_before_the_name(data: bytes, name: str, expected: Format) -> None:
    """A mislabelled file is read as what it is; the name only tells kinds of text apart."""
    assert detect(data, name) is expected


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"{\\rtf1 x}", "RTF"),
        (b"\xffWPC\x10", "WordPerfect"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x1f\x8b\x08", "gzip"),
        (archive({"a.txt": "x"}), "ZIP"),
        (archive({"[Content_Types].xml": "x", "xl/workbook.xml": "x"}), "Excel"),
        (archive({"[Content_Types].xml": "x", "ppt/presentation.xml": "x"}), "PowerPoint"),
        (archive({"mimetype": "x", "content.xml": "x"}), "OpenDocument"),
        (OLE + "WordDocument".encode("utf-16-le"), ".doc"),
        (OLE + "Workbook".encode("utf-16-le"), ".xls"),
        (OLE, "old format"),
    ],
)
def test_formats_without_a_reader_are_named(data: bytes, kind: str) -> None:
    """The failure says what the file is, and which formats are read."""
    with pytest.raises(ReadError) as failure:
        detect(data, "report.txt")

    assert failure.value.outcome == "unsupported"
    assert kind in failure.value.what
    assert "DOCX" in failure.value.hint


def test_an_encrypted_office_file_is_not_called_unsupported() -> None:
    """A password-protected DOCX is an OLE container with an encrypted package in it."""
    with pytest.raises(ReadError) as failure:
        detect(OLE + "EncryptedPackage".encode("utf-16-le"), "a.docx")

    assert failure.value.outcome == "encrypted"


def test_a_damaged_archive_is_unreadable() -> None:
    """Half a DOCX is a damaged file, not an unknown format."""
    with pytest.raises(ReadError) as failure:
        detect(DOCX[: len(DOCX) // 2], "a.docx")

    assert (failure.value.outcome, failure.value.reason) == ("unreadable", "malformed")


def test_many_comments_cost_no_time() -> None:
    """Recognising HTML is linear, whatever stands in front of it."""
    started = time.monotonic()

    found = detect(b"<!---->" * 100_000 + b"x", "a.txt")

    assert found is Format.PLAIN
    assert time.monotonic() - started < 2
