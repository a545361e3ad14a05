"""Scans are told apart, and recognized where the settings ask for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chordwise.readers.reading import ReadDocument, Reader, UnreadDocument
from chordwise.settings import ReaderSettings
from tests.fakes.office_files import archive, pdf, scan

WORDS = "The bridge opened in May"
RECOGNIZING = ReaderSettings(ocr=True)


def outcome(settings: ReaderSettings, data: bytes, name: str = "a.pdf") -> str:
    """Return the text, or the reason why there is none."""
    with Reader(settings) as reader:
        each = reader.read_bytes(data, name)
    return each.content.text.strip() if isinstance(each, ReadDocument) else each.error.reason


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of Tesseract's name that tests write."""
    path = tmp_path / "tesseract"
    path.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return path


def test_a_scan_is_neither_empty_nor_damaged() -> None:
    """Without the setting, it needs OCR."""
    assert outcome(ReaderSettings(), scan(WORDS)) == "needs_ocr"
    assert outcome(RECOGNIZING, pdf([""])) == "empty"


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="Tesseract is not installed")
def test_a_scan_is_recognized() -> None:
    """Its words are the text, inside of an archive, too."""
    assert outcome(RECOGNIZING, scan(WORDS)) == WORDS
    assert outcome(RECOGNIZING, archive({"a.pdf": scan(WORDS)}), "a.zip") == WORDS


def test_the_program_gets_a_picture_and_the_languages(program: Path) -> None:
    """The page as PGM on its standard input, and nothing of our environment."""
    script = 'read -r head\necho "$head $* ${HOME-none}"\n/bin/cat > /dev/null\n'
    program.write_text(f"#!/bin/sh\n{script}")

    read = outcome(ReaderSettings(ocr=True, ocr_languages="deu+eng"), scan(WORDS))

    assert read == "P5 1250 1250 255 - - -l deu+eng none"


def test_a_program_that_fails_is_no_empty_file(program: Path) -> None:
    """A language that is not installed is the usual reason."""
    program.write_text("#!/bin/sh\n/bin/cat > /dev/null\nexit 1\n")

    assert outcome(RECOGNIZING, scan(WORDS)) == "ocr_failed"


def test_a_program_that_hangs_is_stopped(program: Path) -> None:
    """OCR has a time limit of its own."""
    program.write_text("#!/bin/sh\nexec /bin/sleep 60\n")

    with Reader(ReaderSettings(ocr=True, ocr_timeout_seconds=0.5)) as reader:
        each = reader.read_bytes(scan(WORDS), "a.pdf")

    assert isinstance(each, UnreadDocument)
    assert each.error.reason == "timeout"
    assert "readers.ocr_timeout_seconds" in each.error.hint


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with Reader(RECOGNIZING) as reader:
        each = reader.read_bytes(scan(WORDS), "a.pdf")

    assert isinstance(each, UnreadDocument)
    assert each.error.reason == "needs_ocr"
    assert "tesseract-ocr" in each.error.hint
