"""Tests of recognizing files by their content and of checking the results of a reader process."""

from __future__ import annotations

import io
import time
from dataclasses import replace

import pytest

from chordwise.domain.json_values import JsonObject
from chordwise.errors import ReadError
from chordwise.readers.parser_main import detect, extract
from chordwise.readers.protocol import Reply, frames_of, text_of
from chordwise.readers.reader_output import ContainedFile, Extracted, ReadOptions
from tests.fakes.office_files import archive, document, docx, paragraph, pdf, shown, workbook

DOCX = docx(document(paragraph("x")))
PDF = pdf([shown("x")])
FROM = b"From a@b.example Sat Jan  3 01:05:34 1996\n"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)


def odf(kind: str) -> bytes:
    mimetype = f"application/vnd.oasis.opendocument.{kind}"
    return archive({"mimetype": mimetype, "content.xml": "x", "META-INF/manifest.xml": "x"})


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (PDF, "a.txt", "pdf"),
        (b"HTTP junk\r\n" + PDF, "a", "pdf"),
        (DOCX, "a.pdf", "docx"),
        (b"text", "a.txt", "plain"),
        (b"A text about %PDF-1.7 headers.", "a.txt", "plain"),
        (b"text", "a.doc", "plain"),
        (b"a\tb\n", "a.xls", "plain"),
        (b"<html><p>x", "a.doc", "html"),
        (b"Return-Path: <a@b.example>\nSubject: x\n\nx", "a.msg", "mail"),
        (b"{\\rtf1 x}", "a.docx", "rich_text"),
        (PDF.removeprefix(b"%PDF-"), "a.pdf", "pdf"),
        (b"# Title", "a.MD", "markdown"),
        (b"<!-- c --><!DOCTYPE HTML><p>x", "a.txt", "html"),
        ("<html><p>x".encode("utf-16"), "a", "html"),
        (b"<p>x", "a.htm", "html"),
        (b"<note><to>x</to></note>", "a.xml", "plain"),
        (b"Return-Path: <a@b.example>\nSubject: x\n\nx", "a", "mail"),
        (b"{\\rtf1 x}", "a.doc", "rich_text"),
        (archive({"a.txt": "x"}), "a.docx", "archives"),
        (archive({"[Content_Types].xml": "x", "xl/workbook.xml": "x"}), "a", "sheets"),
        (archive({"[Content_Types].xml": "x", "ppt/slides/s.xml": "x"}), "a", "presentation"),
        (archive({"META-INF/container.xml": "x"}), "a.zip", "epub"),
        (odf("text"), "a.zip", "open_document"),
        (odf("spreadsheet"), "a.zip", "sheets"),
        (OLE + "Workbook".encode("utf-16-le"), "a", "sheets"),
        (OLE + "__properties_version1.0".encode("utf-16-le"), "a", "outlook"),
        (FROM + b"Subject: x\n\nx", "a", "mailbox"),
        (FROM + b"Subject: x\n\nx", "a.eml", "mail"),
        (FROM + b"no header", "a.txt", "plain"),
        (b"From Monday to 10:15 in 2025\nSubject: x\n\nx", "a.md", "markdown"),
    ],
)
def test_content_outweighs_the_name(data: bytes, name: str, expected: str) -> None:
    """The name only distinguishes kinds of text."""
    assert detect(data, name) == expected


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\xffWPC\x10", "WordPerfect"),
        (b"GIF89a", "GIF"),
        (b"\x1f\x8b\x08", "gzip"),
        (archive({"[Content_Types].xml": "x", "visio/document.xml": "x"}), "Visio"),
        (OLE + "PowerPoint Document".encode("utf-16-le"), ".ppt"),
        (OLE, "old format"),
    ],
)
def test_formats_without_a_reader_are_reported(data: bytes, kind: str) -> None:
    with pytest.raises(ReadError) as failure:
        detect(data, "report.txt")

    assert failure.value.outcome == "unsupported"
    assert kind in failure.value.what
    assert "DOCX" in failure.value.hint


@pytest.mark.parametrize(
    ("data", "outcome", "reason"),
    [
        (OLE + "EncryptedPackage".encode("utf-16-le"), "encrypted", "encrypted"),
        (DOCX[: len(DOCX) // 2], "unreadable", "truncated"),
        (archive({"a.txt": "x"})[:-30], "unreadable", "truncated"),
        (workbook({"A": [["x"]]})[:-30], "unreadable", "truncated"),
        (DOCX.replace(b"PK\x01\x02", b"PK\x01\x09"), "unreadable", "malformed"),
    ],
    ids=["a password", "cut off", "an archive", "a workbook", "a hole"],
)
def test_unreadable_office_files_are_not_reported_as_unsupported(
    data: bytes, outcome: str, reason: str
) -> None:
    """A DOCX with a password is an OLE container with an encrypted package in it."""
    with pytest.raises(ReadError) as failure:
        detect(data, "a.docx")

    assert (failure.value.outcome, failure.value.reason) == (outcome, reason)


@pytest.mark.parametrize("data", [b"%garbage..", b"text", b"<html><p>Not found", bytes(90)])
@pytest.mark.parametrize("name", ["a.pdf", "a.DOCX", "a.xlsx", "a.png", "a.zip"])
def test_content_that_contradicts_the_name_is_unreadable(data: bytes, name: str) -> None:
    with pytest.raises(ReadError, match=name[1:].lower()) as failure:
        detect(data, name)

    assert (failure.value.outcome, failure.value.reason) == ("unreadable", "mislabeled")
    assert ".txt" in failure.value.hint
    assert detect(data, "a.txt") in {"plain", "html"}


def test_noise_without_the_name_of_a_format_is_binary() -> None:
    with pytest.raises(ReadError) as failure:
        extract(io.BytesIO(bytes(range(256)) * 20), OPTIONS)

    assert failure.value.reason == "binary"


def test_html_is_recognized_in_linear_time() -> None:
    started = time.monotonic()

    assert detect(b"<!---->" * 100_000 + b"x", "a.txt") == "plain"
    assert time.monotonic() - started < 2


LIMIT = 1_000
OPTIONS = ReadOptions(max_characters=2_000_000, max_part_bytes=0, name="a.txt")


def test_invalid_output_of_a_reader_process_can_be_stored() -> None:
    """A compromised process may send any bytes."""
    decoded = text_of(Reply(header={}, text=bytearray(b"A\xff\xfe\x00B")), LIMIT)

    assert decoded.text.encode().isascii() is False
    assert "\0" not in decoded.text


@pytest.mark.parametrize("flag", [{}, {"kind": "praise"}, {"kind": "order", "start_char": 1}])
def test_invalid_flags_of_a_reader_process_are_refused(flag: JsonObject) -> None:
    with pytest.raises(ReadError) as caught:
        text_of(Reply(header={"flags": [flag]}, text=bytearray(b"A text.")), LIMIT)

    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(("signs", "is_refused"), [(9_000, True), (11_000, False)])
def test_a_long_text_of_white_space_is_refused(signs: int, *, is_refused: bool) -> None:
    """It would be split into thousands of chunks without words."""
    data = b"x" * signs + b"\n" * 1_000_000

    if is_refused:
        with pytest.raises(ReadError) as caught:
            extract(io.BytesIO(data), OPTIONS)
        assert (caught.value.outcome, caught.value.reason) == ("too_large", "white_space")
    else:
        assert isinstance(extract(io.BytesIO(data), OPTIONS), Extracted)


def test_a_part_above_the_limit_is_reported() -> None:
    part = ContainedFile(place="b", name="b.txt", pieces=(b"x" * 4, b"x" * 7))

    *_, (header, _) = frames_of(part, replace(OPTIONS, max_part_bytes=10))

    assert (header["place"], header["outcome"]) == ("b", "too_large")
