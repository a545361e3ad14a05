"""Tests that hostile files are identified in little time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from chordwise.readers.reader import ReadDocument, Reader, UnreadDocument
from chordwise.settings import ReaderSettings
from tests.fakes.compound_files import compound_file, message
from tests.fakes.office_files import (
    archive,
    book,
    document,
    docx,
    open_document,
    paragraph,
    pdf,
    presentation,
    shape,
    shown,
    workbook,
)

pytestmark = pytest.mark.xdist_group("readers_hostile")

MEGABYTE = 1024 * 1024
ENTITIES = "".join(
    f'<!ENTITY l{n} "&l{n - 1};&l{n - 1};&l{n - 1};&l{n - 1};">' for n in range(1, 20)
)
LAUGHS = f'<!DOCTYPE d [<!ENTITY l0 "ha">{ENTITIES}]>'
EXTERNAL = '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
LONG_PDF = pdf([shown(f"page {number}") for number in range(300)])


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """Return a reader shared by all tests, so that each file is also read after a harmful one."""
    with Reader(ReaderSettings(timeout_seconds=10, memory_megabytes=256)) as opened:
        yield opened


@pytest.mark.parametrize(
    ("data", "name", "outcome", "reason"),
    [
        pytest.param(
            lambda: docx(document(paragraph("A" * 200_000_000))),
            "a.docx",
            "too_large",
            "zip_bomb",
            id="zip bomb",
        ),
        pytest.param(
            lambda: docx(document("<w:p/>" * 5_000_000)),
            "a.docx",
            "too_large",
            "zip_bomb",
            id="empty tags",
        ),
        pytest.param(
            lambda: docx(document(paragraph("A&x;B"), EXTERNAL)),
            "a.docx",
            "unreadable",
            "malformed",
            id="external entity",
        ),
        pytest.param(
            lambda: docx(document(paragraph("&l19;"), LAUGHS)),
            "a.docx",
            "unreadable",
            "malformed",
            id="billion laughs",
        ),
        pytest.param(
            lambda: docx(document(""), {"_rels/.rels": EXTERNAL}),
            "a.docx",
            "unreadable",
            "malformed",
            id="relations with entity",
        ),
        pytest.param(
            lambda: archive({"[Content_Types].xml": "", "_rels/.rels": ""}),
            "a.docx",
            "unreadable",
            "malformed",
            id="no main part",
        ),
        pytest.param(
            lambda: b"PK\x03\x04" + bytes(100), "a.docx", "unreadable", "truncated", id="zip stump"
        ),
        pytest.param(
            lambda: workbook({"A": [["A" * 200_000_000]]}),
            "a.xlsx",
            "too_large",
            "zip_bomb",
            id="xlsx",
        ),
        pytest.param(
            lambda: workbook({"A": [["x"]]}, last="XFD1048576"),
            "a.xlsx",
            "unreadable",
            "parser_crashed",
            id="sparse xlsx",
        ),
        pytest.param(
            lambda: presentation(shape("A" * 200_000_000)),
            "a.pptx",
            "too_large",
            "zip_bomb",
            id="pptx",
        ),
        pytest.param(
            lambda: presentation("", parts={"ppt/slides/slide1.xml": f"{LAUGHS}<d>&l19;</d>"}),
            "a.pptx",
            "unreadable",
            "malformed",
            id="pptx laughs",
        ),
        pytest.param(
            lambda: open_document("<text:p>" + "A" * 200_000_000),
            "a.odt",
            "too_large",
            "zip_bomb",
            id="odt bomb",
        ),
        pytest.param(
            lambda: archive(
                {
                    "META-INF/manifest.xml": "<m/>",
                    "content.xml": f"{EXTERNAL}<text:p xmlns:text='x'>&x;</text:p>",
                }
            ),
            "a.odt",
            "unreadable",
            "malformed",
            id="odt external entity",
        ),
        pytest.param(
            lambda: open_document("<text:p>" * 200_000),
            "a.odt",
            "unreadable",
            "malformed",
            id="deep odt",
        ),
        pytest.param(
            lambda: book({"one": "A" * 200_000_000}),
            "a.epub",
            "too_large",
            "zip_bomb",
            id="epub bomb",
        ),
        pytest.param(
            lambda: book({"one": "x"}, {"META-INF/container.xml": f"{EXTERNAL}<c>&x;</c>"}),
            "a.epub",
            "unreadable",
            "malformed",
            id="epub external entity",
        ),
        pytest.param(lambda: b"{\\rtf1 " + b"{" * 3_000_000, "a.rtf", "*", "*", id="deep rtf"),
        pytest.param(
            lambda: compound_file(message({"1000001F": "x"}))[:1_536] + b"\xff" * 50_000,
            "a.msg",
            "*",
            "*",
            id="msg garbage",
        ),
        pytest.param(
            lambda: archive({"a.txt": "A" * 300_000_000}),
            "a.zip",
            "too_large",
            "too_large",
            id="zeros in a zip",
        ),
        pytest.param(
            lambda: b"From a@b.example Sat Jan  3 01:05:34 1996\n" * 100_000,
            "a.mbox",
            "empty",
            "empty",
            id="empty mails",
        ),
        pytest.param(lambda: b'"' * 5_000_000, "a.csv", "*", "*", id="quotes in a csv"),
        pytest.param(lambda: LONG_PDF[:2_000], "a.pdf", "*", "*", id="truncated pdf"),
        pytest.param(
            lambda: LONG_PDF.replace(b"/Kids[4 0 R", b"/Kids[2 0 R"),
            "a.pdf",
            "*",
            "*",
            id="circular pages",
        ),
        pytest.param(
            lambda: LONG_PDF.replace(b"/Count 300", b"/Count 2000000000"),
            "a.pdf",
            "*",
            "*",
            id="page count",
        ),
        pytest.param(lambda: b"%PDF-1.4\n" + b"[" * 5_000_000, "a.pdf", "*", "*", id="deep pdf"),
        pytest.param(lambda: bytes(5_000_000), "a.txt", "unsupported", "binary", id="zeros"),
        pytest.param(
            lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a", "unsupported", "unsupported", id="ole"
        ),
        pytest.param(
            lambda: b"<html>" + b"<div hidden>" * 200_000 + b"x",
            "a.html",
            "empty",
            "empty",
            id="deep html",
        ),
        pytest.param(
            lambda: b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n" * 200_000,
            "a.eml",
            "*",
            "*",
            id="mail of many parts",
        ),
        pytest.param(
            lambda: (
                b"MIME-Version: 1.0\n"
                + b"".join(
                    b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n)
                    for n in range(5_000)
                )
            ),
            "a.eml",
            "*",
            "*",
            id="deep mail",
        ),
        pytest.param(
            lambda: docx(document("<w:tbl><w:tr><w:tc>" * 100_000)),
            "a.docx",
            "*",
            "*",
            id="deep docx",
        ),
    ],
)
def test_hostile_files_are_read_within_the_limits(
    reader: Reader, data: Callable[[], bytes], name: str, outcome: str, reason: str
) -> None:
    """Each leaks nothing, and the reader works afterwards.

    If damage can be repaired, text is accepted as well as an error (`*`).
    """
    content = data()
    started = time.monotonic()

    result = reader.read_bytes(content, name)

    assert time.monotonic() - started < 15
    if outcome == "*":
        assert isinstance(result, UnreadDocument | ReadDocument)
    else:
        assert isinstance(result, UnreadDocument)
        assert (result.error.outcome, result.error.reason) == (outcome, reason)
    assert "root:" not in str(result)
    assert psutil.Process().memory_info().rss < 1_500 * MEGABYTE
    following = reader.read_bytes(b"the next file", "next.txt")
    assert isinstance(following, ReadDocument)
    assert following.content.text == "the next file"


def test_a_long_line_without_sentences_is_read(reader: Reader) -> None:
    result = reader.read_bytes(b"word " * 8_000_000, "line.txt")

    assert isinstance(result, ReadDocument)
    assert len(result.content.text) == 40_000_000
