"""PDFs give the text that lies on their pages."""

from __future__ import annotations

import pytest

from chordwise.errors import ReadError
from chordwise.readers import pdf
from tests.fakes.office_files import pdf as build
from tests.fakes.office_files import shown

LIMIT = 1_000_000


def failure(data: bytes, limit: int = LIMIT) -> ReadError:
    """Return why a PDF could not be read."""
    with pytest.raises(ReadError) as caught:
        pdf.read(data, limit)
    return caught.value


def test_pages_are_parted_by_a_blank_line() -> None:
    """All pages are read in order and counted."""
    extracted = pdf.read(build([shown("page one"), shown("page two")]), LIMIT)

    assert extracted.text == "page one\n\npage two"
    assert extracted.pages == 2
    assert extracted.pages_unread == 0


@pytest.mark.parametrize("junk", [b"HTTP/1.1 200 OK\r\n\r\n", b"\n\n", b""])
def test_junk_before_the_header_does_not_matter(junk: bytes) -> None:
    """What a server or a mail program put in front is skipped."""
    assert pdf.read(junk + build([shown("text")]), LIMIT).text == "text"


def test_text_off_the_page_is_left_out() -> None:
    """Nobody sees what lies beside the page, and no model reads it."""
    content = f"{shown('seen')} {shown('planted', x=20, y=-500)}"

    assert pdf.read(build([content]), LIMIT).text == "seen"


def test_pages_with_graphics_only_need_ocr() -> None:
    """A PDF without text but with something drawn is called a scan, and OCR is advised."""
    scan = failure(build(["10 10 100 100 re f"]))

    assert (scan.outcome, scan.reason) == ("unreadable", "needs_ocr")
    assert "OCR" in scan.hint


def test_blank_pages_are_empty() -> None:
    """A PDF with nothing on its pages holds no text."""
    assert failure(build([""])).outcome == "empty"


@pytest.mark.parametrize("data", [b"%PDF-1.4\n%%EOF", b"", b"no PDF"])
def test_damaged_files_are_malformed(data: bytes) -> None:
    """What PDFium cannot open is a damaged PDF."""
    assert failure(data).reason == "malformed"


def test_a_file_without_its_end_is_cut_off() -> None:
    """What PDFium cannot open and does not end as a PDF ends has to be fetched again."""
    whole = build([shown("text")])

    assert failure(whole[:200]).reason == "truncated"
    assert "download it again" in failure(b"%PDF-1.7\n").hint


def test_the_limit_of_characters_holds() -> None:
    """Text beyond the limit stops the reading."""
    assert failure(build([shown("many words")] * 5), limit=20).outcome == "too_large"
