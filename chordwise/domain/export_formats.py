"""The formats that tables leave Chordwise in."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePath


class ExportFormat(StrEnum):
    """Named as the ending of its files."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    XLSX = "xlsx"

    @property
    def is_text(self) -> bool:
        """Whether a terminal can show it."""
        return self in (ExportFormat.CSV, ExportFormat.JSONL)

    @classmethod
    def of_file(cls, path: PurePath) -> ExportFormat | None:
        """Return the format that a file's ending names, if it names one."""
        ending = path.suffix.removeprefix(".").lower()
        return next((each for each in cls if each == ending), None)
