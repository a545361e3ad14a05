"""The formats of exported tables."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePath


class ExportFormat(StrEnum):
    """A format, named after its file extension."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    XLSX = "xlsx"

    @property
    def is_text(self) -> bool:
        """Whether the format can be shown in a terminal."""
        return self in (ExportFormat.CSV, ExportFormat.JSONL)

    @classmethod
    def of_file(cls, path: PurePath) -> ExportFormat | None:
        """Return the format of a file by its extension, or `None`."""
        ending = path.suffix.removeprefix(".").lower()
        return next((member for member in cls if member == ending), None)
