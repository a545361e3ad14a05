"""Tests of files with many documents: each has its place, and no file exceeds the limits."""

from __future__ import annotations

import io
import os
import tracemalloc
import zipfile
from collections.abc import Iterator
from email.message import EmailMessage
from hashlib import sha256
from pathlib import Path

import psutil
import pytest

from chordwise.domain.places import Places
from chordwise.readers import reader as reader_module
from chordwise.readers.reader import Columns, ReadDocument, Reader, UnreadDocument
from chordwise.settings import ReaderSettings
from tests.fakes.office_files import archive, docx, pdf, shown, workbook
from tests.fakes.office_files import document as word_document
from tests.fakes.office_files import paragraph as word_paragraph

MEGABYTE = 1024 * 1024
FROM = b"From a@b.example Sat Jan  3 01:05:34 1996\n"
SPARSE = workbook({"A": [["x"]]}, last="XFD1048576")
WORD = docx(word_document(word_paragraph("three")))


def listed(documents: Iterator[ReadDocument | UnreadDocument]) -> list[tuple[str, str]]:
    return [(document.source, outcome(document)) for document in documents]


def outcome(document: ReadDocument | UnreadDocument) -> str:
    return document.content.text if isinstance(document, ReadDocument) else document.error.reason


def a_mail(subject: str, *attachments: tuple[str, bytes]) -> bytes:
    written = EmailMessage()
    written["Subject"] = subject
    written.set_content("Hello")
    for name, data in attachments:
        written.add_attachment(data, "application", "octet-stream", filename=name)
    return written.as_bytes()


def nested(levels: int, content: bytes) -> bytes:
    for _ in range(levels):
        content = archive({"in.zip": content})
    return content


def test_files_in_files_are_separate_documents(reader: Reader) -> None:
    packed = archive({"b/three.docx": WORD, "four.txt": "four"})
    mailbox = FROM + a_mail("one", ("two.pdf", pdf([shown("two")])), ("c.zip", packed))

    documents = listed(reader.documents_in(mailbox, "in.mbox"))

    assert documents == [
        ("in.mbox#1", "Subject: one\n\nHello\n\nAttachment: two.pdf\nAttachment: c.zip"),
        ("in.mbox#1#two.pdf", "two"),
        ("in.mbox#1#c.zip#b/three.docx", "three"),
        ("in.mbox#1#c.zip#four.txt", "four"),
    ]


def test_each_part_has_the_hash_of_its_bytes(reader: Reader) -> None:
    data = a_mail("one", ("a.txt", b"two"))

    whole, part = reader.documents_in(data, "a.eml")

    assert (whole.sha256, whole.byte_count) == (sha256(data).hexdigest(), len(data))
    assert (part.sha256, part.byte_count) == (sha256(b"two").hexdigest(), 3)


def test_names_in_an_archive_are_escaped(reader: Reader, tmp_path: Path) -> None:
    data = archive({"../../climbs.txt": "one", "a\nb\u202e.txt": "two", f"{tmp_path}/x": "three"})
    path = tmp_path / "a.zip"
    path.write_bytes(data)

    documents = listed(reader.read_documents(path))

    assert documents == [
        (f"{path}#../../climbs.txt", "one"),
        (f"{path}#a\\nb\\u202e.txt", "two"),
        (f"{path}#{tmp_path}/x", "three"),
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_rows_of_tables_are_documents(reader: Reader, tmp_path: Path) -> None:
    columns = Columns(text="review", identity="id")
    table = b"id,review\na,Fine.\nb, \n"
    path = tmp_path / "a.zip"
    path.write_bytes(archive({"r.csv": table, "letter.txt": "Dear Sir"}))

    documents = list(reader.read_documents(path, columns))

    assert listed(iter(documents)) == [
        (f"{path}#r.csv#a", "Fine."),
        (f"{path}#r.csv#b", "empty"),
        (f"{path}#letter.txt", "Dear Sir"),
    ]
    assert documents[0].sha256 == sha256(b"Fine.").hexdigest()
    assert listed(reader.documents_in(table, "r.csv")) == [("r.csv", table.decode())]


def test_a_part_that_exceeds_its_limits_does_not_affect_others() -> None:
    bomb = b"<html>" + "ж".encode() * 40_000_000
    data = archive({"a.txt": "one", "bomb.html": bomb, "c.txt": "three"})
    with Reader(ReaderSettings(memory_megabytes=200)) as reader:
        documents = listed(reader.documents_in(data, "a.zip"))

    assert [text for _, text in documents] == ["one", "memory", "three"]


@pytest.mark.parametrize(
    ("data", "settings", "read", "reason"),
    [
        pytest.param(
            archive({f"{number}.txt": "x" for number in range(9)}),
            ReaderSettings(max_documents=5),
            5,
            "too_many_documents",
            id="number",
        ),
        pytest.param(
            archive({f"{number}.txt": "x" * 700_000 for number in range(9)}),
            ReaderSettings(max_unpacked_megabytes=2),
            2,
            "unpacked_size",
            id="size",
        ),
    ],
)
def test_the_number_of_documents_in_a_file_is_limited(
    data: bytes, settings: ReaderSettings, read: int, reason: str
) -> None:
    with Reader(settings) as reader:
        documents = list(reader.documents_in(data, "a.zip"))

        assert [type(document) for document in documents[:-1]] == [ReadDocument] * read
        assert (documents[-1].source, outcome(documents[-1])) == ("a.zip", reason)
        assert listed(reader.documents_in(data[:4], "stump.zip")) != []


def test_the_time_for_a_file_is_limited() -> None:
    """This holds however quick each part is; documents before the limit are kept."""
    page = b"<html>" + b"<p hidden>x &amp; y</p>" * 10_000 + b"<p>seen"
    data = archive({f"{number}.html": page for number in range(480)})
    with Reader(ReaderSettings(file_timeout_seconds=2)) as reader:
        documents = listed(reader.documents_in(data, "a.zip"))
        after = listed(reader.documents_in(b"next", "b.txt"))

    texts = [text for _, text in documents]
    assert 1 < len(texts) < 480
    assert texts == ["seen"] * (len(texts) - 1) + ["file_timeout"]
    assert documents[-1][0] == "a.zip"
    assert after == [("b.txt", "next")]


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, pytest.param(zipfile.ZIP_DEFLATED, marks=pytest.mark.nightly)]
)
def test_the_reading_process_holds_no_file_in_memory(
    reader: Reader, tmp_path: Path, method: int
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as packed:
        packed.writestr("a.bin", os.urandom(24 * MEGABYTE))
    tracemalloc.start()
    try:
        (document,) = reader.read_documents(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (document.source, document.byte_count) == (f"{path}#a.bin", 24 * MEGABYTE)
    assert peak < 8 * MEGABYTE


def test_an_archive_that_begins_with_a_pdf_is_an_archive(reader: Reader) -> None:
    """The first file in it is stored uncompressed, right after the header of the archive."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr("a.pdf", pdf([shown("one")]))
        packed.writestr("b.txt", "two")

    documents = listed(reader.documents_in(data.getvalue(), "a.zip"))

    assert documents == [("a.zip#a.pdf", "one"), ("a.zip#b.txt", "two")]


def test_many_failing_parts_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_COSTLY_PARTS", 4)
    data = archive({f"{number}.xlsx": SPARSE for number in range(6)})
    with Reader(ReaderSettings(memory_megabytes=200)) as reader:
        documents = listed(reader.documents_in(data, "a.zip"))

    assert [reason for _, reason in documents] == ["parser_crashed"] * 3 + ["too_many_failures"]


@pytest.mark.nightly
def test_a_mailbox_of_many_messages_needs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "in.mbox"
    message_bytes = FROM + a_mail("one") + b"x" * 12_000 + b"\n\n"
    path.write_bytes(message_bytes * 2_000)
    this_process = psutil.Process()
    before, others = this_process.memory_info().rss, set(this_process.children(recursive=True))

    peak, count = 0, 0
    with Reader(ReaderSettings()) as reader:
        for count, document in enumerate(reader.read_documents(path), start=1):
            assert isinstance(document, ReadDocument)
            assert document.source == f"{path}#{count}"
            if count % 100 == 0:
                of_reader = [this_process, *(set(this_process.children(recursive=True)) - others)]
                peak = max(peak, sum(process.memory_info().rss for process in of_reader))

    assert count == 2_000
    # Both processes hold the file itself; holding its messages would at least double that.
    assert peak - before < 350 * MEGABYTE


def test_a_reader_works_after_its_caller_stops_early(reader: Reader) -> None:
    data = archive({f"{number}.txt": "x" for number in range(100)})

    documents = reader.documents_in(data, "a.zip")
    assert outcome(next(documents)) == "x"
    documents.close()  # type: ignore[attr-defined]  # it is a generator

    assert listed(reader.documents_in(b"next", "b.txt")) == [("b.txt", "next")]
    assert outcome(reader.read_bytes(data, "a.zip")) == "x"
    assert outcome(reader.read_bytes(WORD, "c.docx")) == "three"


def test_an_archive_without_files_is_empty(reader: Reader) -> None:
    assert listed(reader.documents_in(archive({"folder/": ""}), "a.zip")) == [("a.zip", "empty")]


def test_an_archive_that_contains_itself_is_read_to_the_limit(reader: Reader) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        written.writestr("a.txt", "one")
        written.writestr("in.zip", nested(8, b"x"))

    documents = listed(reader.documents_in(buffer.getvalue(), "a.zip"))

    assert documents == [("a.zip#a.txt", "one"), ("a.zip", "nested_too_deep")]


def test_messages_and_attachments_are_named_in_places(reader: Reader) -> None:
    """Each level of a mail is named; an archive is not, because the source names it."""
    attached = a_mail("two", ("x.pdf", pdf([shown("none"), shown("Rent")])))
    mailbox = FROM + a_mail("one") + b"\n" + FROM + a_mail("1", ("b.eml", attached))
    archived = archive({"in.mbox": mailbox, "c.md": "# Fees\r\n\r\nNone\r\n", "d.txt": "Rent"})

    locations = {
        document.source: Places(document.content.places).locate(
            len(document.content.text) - 3, MEGABYTE
        )
        for document in reader.documents_in(archived, "a.zip")
        if isinstance(document, ReadDocument)
    }

    assert {source: where.place for source, where in locations.items()} == {
        "a.zip#in.mbox#1": "message 1",
        "a.zip#in.mbox#2": "message 2",
        "a.zip#in.mbox#2#b.eml": "message 2, attachment b.eml",
        "a.zip#in.mbox#2#b.eml#x.pdf": "message 2, attachment b.eml, attachment x.pdf, p. 2",
        "a.zip#c.md": "section Fees",
        "a.zip#d.txt": None,
    }
    assert locations["a.zip#in.mbox#2#b.eml#x.pdf"].page == 2
    (single, *_) = reader.documents_in(a_mail("one"), "a.eml")
    assert isinstance(single, ReadDocument)
    assert [place.label for place in single.content.places] == ["message"]


def test_offsets_of_places_refer_to_the_stored_text(reader: Reader) -> None:
    """Line ends are normalized and invisible characters removed in it."""
    data = "\ufeffx;y\r\n\u200b1;2\r\n3;4\u200b\u200b\r\n5;6\r\n".encode()

    (document,) = reader.documents_in(data, "a.csv")

    assert isinstance(document, ReadDocument)
    text, located = document.content.text, Places(document.content.places)
    assert text == "x;y\n1;2\n3;4\n5;6\n"
    rows = [located.locate(text.index(row), text.index(row) + 3).place for row in text.split()]
    assert rows == ["A1:B1", "A2:B2", "A3:B3", "A4:B4"]
