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
# Shrinks to a thousandth, and is above the size from which that is suspicious.
BOMB = "A" * 20_000_000
ENTITIES = "".join(
    f'<!ENTITY l{n} "&l{n - 1};&l{n - 1};&l{n - 1};&l{n - 1};">' for n in range(1, 20)
)
LAUGHS = f'<!DOCTYPE d [<!ENTITY l0 "ha">{ENTITIES}]>'
EXTERNAL = '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
LONG_PDF = pdf([shown(f"page {number}") for number in range(300)])


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """Return a reader shared by all tests, so that each file is also read after a harmful one."""
    limits = ReaderSettings(timeout_seconds=10, memory_megabytes=256, max_file_megabytes=48)
    with Reader(limits) as opened:
        yield opened


def in_nested_parts(depth: int) -> bytes:
    parts = (
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(depth)
    )
    return b"MIME-Version: 1.0\n" + b"".join(parts)


# By the outcome and its reason, and by the name of the file.
HOSTILE: dict[tuple[str, str], dict[str, Callable[[], bytes]]] = {
    ("too_large", "zip_bomb"): {
        "zip bomb.docx": lambda: docx(document(paragraph(BOMB))),
        "empty tags.docx": lambda: docx(document("<w:p/>" * 5_000_000)),
        "bomb.xlsx": lambda: workbook({"A": [[BOMB]]}),
        "bomb.pptx": lambda: presentation(shape(BOMB)),
        "bomb.odt": lambda: open_document("<text:p>" + BOMB),
        "bomb.epub": lambda: book({"one": BOMB}),
    },
    ("too_large", "too_large"): {"zeros.zip": lambda: archive({"a.txt": BOMB * 3})},
    ("unreadable", "malformed"): {
        "external entity.docx": lambda: docx(document(paragraph("A&x;B"), EXTERNAL)),
        "billion laughs.docx": lambda: docx(document(paragraph("&l19;"), LAUGHS)),
        "relations with entity.docx": lambda: docx(document(""), {"_rels/.rels": EXTERNAL}),
        "no main part.docx": lambda: archive({"[Content_Types].xml": "", "_rels/.rels": ""}),
        "laughs.pptx": lambda: presentation(
            "", parts={"ppt/slides/slide1.xml": f"{LAUGHS}<d>&l19;</d>"}
        ),
        "external entity.odt": lambda: archive(
            {
                "META-INF/manifest.xml": "<m/>",
                "content.xml": f"{EXTERNAL}<text:p xmlns:text='x'>&x;</text:p>",
            }
        ),
        "deep.odt": lambda: open_document("<text:p>" * 200_000),
        "external entity.epub": lambda: book(
            {"one": "x"}, {"META-INF/container.xml": f"{EXTERNAL}<c>&x;</c>"}
        ),
    },
    ("unreadable", "truncated"): {"zip stump.docx": lambda: b"PK\x03\x04" + bytes(100)},
    ("unreadable", "parser_crashed"): {
        "sparse.xlsx": lambda: workbook({"A": [["x"]]}, last="XFD1048576")
    },
    ("empty", "empty"): {
        "empty mails.mbox": lambda: b"From a@b.example Sat Jan  3 01:05:34 1996\n" * 100_000,
        "deep.html": lambda: b"<html>" + b"<div hidden>" * 200_000 + b"x",
    },
    ("unsupported", "binary"): {"zeros.txt": lambda: bytes(5_000_000)},
    ("unsupported", "unsupported"): {"ole": lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"},
    # If damage can be repaired, text is accepted as well as an error.
    ("", ""): {
        "deep.rtf": lambda: b"{\\rtf1 " + b"{" * 1_000_000,
        "garbage.msg": lambda: compound_file(message({"1000001F": "x"}))[:1_536] + b"\xff" * 50_000,
        "quotes.csv": lambda: b'"' * 5_000_000,
        "truncated.pdf": lambda: LONG_PDF[:2_000],
        "circular pages.pdf": lambda: LONG_PDF.replace(b"/Kids[4 0 R", b"/Kids[2 0 R"),
        "page count.pdf": lambda: LONG_PDF.replace(b"/Count 300", b"/Count 2000000000"),
        "deep.pdf": lambda: b"%PDF-1.4\n" + b"[" * 5_000_000,
        "many parts.eml": lambda: (
            b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n" * 200_000
        ),
        "deep.eml": lambda: in_nested_parts(5_000),
        "deep.docx": lambda: docx(document("<w:tbl><w:tr><w:tc>" * 100_000)),
    },
}


@pytest.mark.parametrize(
    ("expected", "name"), [(key, name) for key, files in HOSTILE.items() for name in files]
)
def test_hostile_files_are_read_within_the_limits(
    reader: Reader, expected: tuple[str, str], name: str
) -> None:
    """Each leaks nothing, and the reader works afterwards."""
    content = HOSTILE[expected][name]()
    started = time.monotonic()

    result = reader.read_bytes(content, name)

    assert time.monotonic() - started < 15
    if any(expected):
        assert isinstance(result, UnreadDocument)
        assert (result.error.outcome, result.error.reason) == expected
    assert "root:" not in str(result)
    assert psutil.Process().memory_info().rss < 1_500 * MEGABYTE
    following = reader.read_bytes(b"the next file", "next.txt")
    assert isinstance(following, ReadDocument)
    assert following.content.text == "the next file"


def test_a_long_line_without_sentences_is_read(reader: Reader) -> None:
    result = reader.read_bytes(b"word " * 2_000_000, "line.txt")

    assert isinstance(result, ReadDocument)
    assert len(result.content.text) == 10_000_000
