"""Reader for plain text and text-based formats: CSV, JSON, XML, logs, source code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import BinaryIO

from chordwise.errors import ReadError
from chordwise.readers import encodings, failures
from chordwise.readers.formats import Format, sheets
from chordwise.readers.limits import BYTES_PER_CHARACTER
from chordwise.readers.reader_output import Extracted, Extraction, ReadOptions

# Files with these names are often text, HTML or a message, and mislabeled only if they are neither.
_OLD_NAMES = (".doc", ".xls", ".ppt", ".msg")
_TABLES = ("text/csv", "text/tab-separated-values")
_MEDIA_TYPES = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}


def read(data: bytes, name: str) -> Extracted:
    """Return the text unchanged."""
    decoded = encodings.decode(data)
    media_type = _MEDIA_TYPES.get(PurePath(name).suffix.lower(), "text/plain")
    return Extracted(
        text=decoded.text,
        places=sheets.rows_of_csv(decoded.text) if media_type in _TABLES else (),
        media_type=media_type,
        encoding=decoded.encoding,
    )


def _read(file: BinaryIO, options: ReadOptions) -> Extracted | Iterator[Extraction]:
    data, extension = file.read(), PurePath(options.name).suffix.lower()
    if len(data) > options.max_characters * BYTES_PER_CHARACTER:
        raise failures.too_many_characters(options.max_characters)
    rows = sheets.documents_of_rows(data, options) if options.columns.text else None
    if rows is not None:
        return rows
    try:
        return read(data, options.name)
    except ReadError as error:
        if error.reason == "binary" and extension in _OLD_NAMES:
            raise failures.mislabeled(extension) from error
        raise


FORMAT = Format("TXT, CSV, JSON, XML", _read, matches=lambda *_: True, rank=9)
