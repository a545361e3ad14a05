"""What stands in files becomes rows of a run, each thing once, and the account balances."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chordwise.pipeline.intake import found_files
from chordwise.pipeline.intake.found_files import FileSource
from chordwise.pipeline.intake.submit import open_run
from chordwise.readers.discovery import discover
from chordwise.readers.reading import Columns, Reader
from chordwise.settings import ReaderSettings, Settings
from tests.fakes.office_files import (
    archive,
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
from tests.fakes.pipeline import NOW, Pipeline, a_pipeline, a_run, close_all

SETTINGS = ReaderSettings(max_documents=50)
STRANGE = {
    "nul.txt": b"a\0b",
    "surrogate.txt": b"a\xed\xa0\x80b",
    "noncharacter.txt": "a\ufdd0\uffffb".encode(),
    "combining.txt": b"a" + "\u0301".encode() * 500_000,
    "invisible.txt": "c\u200b\u2060\U000e0041d".encode(),
    "cp1252.txt": "Gr\xfc\xdfe \x96 aus K\xf6ln".encode("latin-1"),
    "wide.txt": "without a mark".encode("utf-16-le"),
    "ends.txt": b"a\r\nb\rc\n",
    "noise.txt": bytes(range(256)) * 50,
    "blank.txt": b" \n\t ",
}


@pytest.fixture
def pipeline(settings: Settings) -> Iterator[Pipeline]:
    """A pipeline over this test's database."""
    yield a_pipeline(settings)
    close_all()


def take_in(pipeline: Pipeline, *arguments: str, columns: Columns, stdin: bytes = b"") -> list[str]:
    """Take files in as a command does; return source and outcome of every intake, in order."""
    found = [found_files.entry_of(file) for file in discover(arguments)]
    submission = open_run(pipeline.context, replace(a_run(), columns=columns), NOW, found)
    with Reader(SETTINGS) as reader:
        source = FileSource(reader, io.BytesIO(stdin))
        found_files.take_in(
            pipeline.context,
            submission,
            source,
            on_taken=lambda _file, _taken: None,
            is_stopped=lambda: False,
        )
    listed = pipeline.value(
        "SELECT array_agg(source || ' ' || outcome ORDER BY id) FROM intakes WHERE run_id = :run",
        run=submission.run_id,
    )
    assert isinstance(listed, list)
    counted = "SELECT intakes_found FROM run_accounts WHERE run_id = :run AND intakes_balance"
    assert pipeline.value(counted, run=submission.run_id) == len(listed)
    return listed


def test_every_row_and_every_part_has_an_intake(pipeline: Pipeline, tmp_path: Path) -> None:
    """Rows by their names, files in an archive by their paths, standard input as a table, too."""
    rows = b"id,review\na,Fine.\nb,\nc,Fine.\n"
    path = tmp_path / "a.zip"
    path.write_bytes(archive({"r.csv": rows, "x.bin": "\x01\x02\x03" * 100}))
    columns = Columns(text="review", identity="id")

    taken = take_in(pipeline, str(path), "-", columns=columns, stdin=b"review\nPoor.\n")

    assert taken == [
        f"{path}#r.csv#a accepted",
        f"{path}#r.csv#b empty",
        f"{path}#r.csv#c duplicate",
        f"{path}#x.bin unsupported",
        "stdin#1 accepted",
    ]


def test_what_a_bound_cuts_off_is_said(pipeline: Pipeline, tmp_path: Path) -> None:
    """The documents before it are taken in; the file's own intake says that there is more."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"t": "{number}"}}\n' for number in range(60)))

    taken = take_in(pipeline, str(path), columns=Columns(text="t"))

    assert taken == [*(f"{path}#{n} accepted" for n in range(1, 51)), f"{path} too_large"]


def test_strange_characters_are_stored(pipeline: Pipeline, tmp_path: Path) -> None:
    """F04, F11, F12: whatever the bytes are, they become text or have a reason, in the database."""
    path = tmp_path / "strange.zip"
    path.write_bytes(archive(STRANGE))

    taken = take_in(pipeline, str(path), columns=Columns())

    outcomes = dict(each.removeprefix(f"{path}#").split(" ") for each in taken)
    refused = {"noise.txt": "unsupported", "blank.txt": "empty"}
    assert outcomes == dict.fromkeys(STRANGE, "accepted") | refused
    query = "SELECT text FROM documents WHERE source = :source"
    assert pipeline.value(query, source=f"{path}#nul.txt") == "ab"
    assert pipeline.value(query, source=f"{path}#cp1252.txt") == "Gr\xfc\xdfe \u2013 aus K\xf6ln"
    assert pipeline.value(query, source=f"{path}#wide.txt") == "without a mark"
    assert pipeline.value(query, source=f"{path}#ends.txt") == "a\nb\nc\n"
    assert pipeline.value(query, source=f"{path}#invisible.txt") == "cd"
    removed = "SELECT normalization ->> 'nul_removed' FROM documents WHERE source = :source"
    assert pipeline.value(removed, source=f"{path}#nul.txt") == "1"


def test_text_that_nobody_sees_is_stored_with_its_count(pipeline: Pipeline, tmp_path: Path) -> None:
    """A hint for whoever looks, and no reason to refuse the file."""
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf([f"{shown('Dear members,')} 1 g {shown('Obey.', y=100)}"]))

    taken = take_in(pipeline, str(path), columns=Columns())

    assert taken == [f"{path} accepted"]
    hidden = "SELECT text, normalization ->> 'invisible_characters' FROM documents"
    assert pipeline.rows(hidden) == [("Dear members,\nObey.", "5")]


def test_invisible_characters_are_counted_in_every_format(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """None is stored, and each intake says why a person should look; the file is accepted."""
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "Obey.")
    texts = {name: f"A letter of {name}.{hidden}" for name in ("txt", "md", "html", "eml", "docx")}
    files = {
        "a.txt": texts["txt"].encode(),
        "a.md": texts["md"].encode(),
        "a.html": f"<html><p>{texts['html']}</p>".encode(),
        "a.eml": f"From: a@example.com\nMIME-Version: 1.0\n"
        f"Content-Type: text/plain; charset=utf-8\n\n{texts['eml']}".encode(),
        "a.docx": docx(document(paragraph(texts["docx"]))),
        "a.pptx": presentation(shape(f"A slide.{hidden}")),
        "a.xlsx": workbook({"Sheet": [["name", f"A cell.{hidden}"]]}),
        "a.odt": open_document(f"<text:p>A paragraph.{hidden}</text:p>"),
        "a.csv": f"a,b\n1,A row.{hidden}\n".encode(),
        "clean.txt": b"A clean letter.",
    }
    path = tmp_path / "a.zip"
    path.write_bytes(archive(files))

    taken = take_in(pipeline, str(path), columns=Columns())

    assert taken == [f"{path}#{name} accepted" for name in files]
    counted = (
        "SELECT i.reason, i.message, d.normalization ->> 'invisible_characters',"
        " d.text ~ '[\U000e0000-\U000e007f]' FROM intakes AS i"
        " JOIN documents AS d ON d.id = i.document_id ORDER BY i.id"
    )
    message = (
        "5 invisible Unicode characters were removed from the text, 5 of them tags, variation "
        "selectors or direction overrides, which can hide instructions."
    )
    noticed = ("invisible_characters", message, "5", False)
    assert pipeline.rows(counted) == [noticed] * 9 + [(None, None, "0", False)]
