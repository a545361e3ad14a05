"""Writes tables in the chosen format, and creates files atomically."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, assert_never

from chordwise.domain.export_formats import ExportFormat
from chordwise.errors import ConfigurationError, UsageError
from chordwise.pipeline.exports.table import Table, write_csv, write_json_lines


def require(file_format: ExportFormat) -> None:
    """Check that a format can be written.

    Raises:
        ConfigurationError: The library of the format is not installed.
    """
    if file_format is ExportFormat.PARQUET:
        try:
            import pyarrow.parquet  # noqa: F401, PLC0415 - heavy, and optional
        except ImportError as error:
            raise ConfigurationError(
                "Parquet needs a library that is not installed.",
                'pip install "chordwise[parquet]"; or use jsonl, which is also lossless.',
            ) from error


def write(sink: BinaryIO, table: Table, file_format: ExportFormat, *, raw: bool = False) -> int:
    """Write a table in a format; return the number of rows.

    `raw` leaves texts that begin like formulas unchanged in CSV and XLSX; the other formats never
    change them.

    Raises:
        UsageError: The format cannot represent a value.
    """
    match file_format:
        case ExportFormat.CSV:
            return write_csv(sink, table, raw=raw)
        case ExportFormat.JSONL:
            return write_json_lines(sink, table)
        case ExportFormat.PARQUET:
            from chordwise.pipeline.exports import parquet  # noqa: PLC0415 - imports pyarrow

            return parquet.write(sink, table)
        case ExportFormat.XLSX:
            # XlsxWriter is slow to import, and the scheduler may never need it.
            from chordwise.pipeline.exports import workbook  # noqa: PLC0415 - see above

            return workbook.write(sink, table, raw=raw)
        case _:
            assert_never(file_format)


_ORDINARY = 0o666  # reduced by the user's umask


def check(path: Path, *, overwrite: bool) -> None:
    """Check that a file can be created at a path, before any work is done for it.

    Raises:
        UsageError: The path exists and may not be replaced, or its folder is missing.
    """
    if not path.parent.is_dir():
        raise UsageError(f"There is no folder {path.parent}.", "Create it first.")
    if os.path.lexists(path) and (not overwrite or path.is_symlink() or not path.is_file()):
        raise _exists(path)


@contextmanager
def new_file(path: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file that is renamed to `path` if the block ends without an exception.

    The file is synced to disk before it is renamed, and the folder before this returns.

    Raises:
        UsageError: The path exists already, or the file cannot be written.
    """
    check(path, overwrite=overwrite)
    name = path.with_name(f".chordwise-{secrets.token_hex(8)}.part")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    try:
        with os.fdopen(os.open(name, flags, _ORDINARY), "wb") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                _rename_into_place(name, path, overwrite=overwrite)
                sync_folder(path.parent)
            finally:
                name.unlink(missing_ok=True)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror or type(error).__name__}.",
            "Check the folder, its permissions, and the space on the disk.",
        ) from error


def _rename_into_place(name: Path, path: Path, *, overwrite: bool) -> None:
    """Rename the file in one step, which fails if the target exists, unless `overwrite` is set."""
    if overwrite:
        name.replace(path)
        return
    try:
        os.link(name, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links: reserve the name first, then replace the file.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        name.replace(path)


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exists(path: Path) -> UsageError:
    return UsageError(
        f"{path} already exists.", "Choose another name, or replace a file with --force."
    )
