"""The files of a finished run in a folder: its account and its answers."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from chordwise.domain import json_values
from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.json_values import JsonObject
from chordwise.errors import DeliveryError, ReadError, UsageError
from chordwise.pipeline.exports import selection, writers
from chordwise.pipeline.exports.selection import Selection
from chordwise.pipeline.exports.writers import new_file
from chordwise.readers import contents
from chordwise.settings import Settings
from chordwise.settings.receivers import Notice

SCHEMA_VERSION = 1
_WHAT_HOLDS_THE_RESULTS = "document_results"
_UNSAFE = re.compile(r"[^\w.-]+")
_MAX_BYTES = 150
_MAX_NAMES = 1_000
_ACCOUNT_MEGABYTES = 1


def write(folder: Path, file_format: ExportFormat, notice: Notice, settings: Settings) -> None:
    """Write the account of a run and its answers into a folder, once.

    Raises:
        ConfigurationError: The library of the format is not installed.
        DeliveryError: The folder is missing, or all numbered file names are taken.
        UsageError: A file cannot be written.
    """
    writers.require(file_format)
    if not folder.is_dir():
        hint = "Create it, or set deliveries.file.folder."
        raise DeliveryError(f"There is no folder {folder}.", hint)
    results = Selection(name=_WHAT_HOLDS_THE_RESULTS, run_id=notice.run_id)
    account: JsonObject = {"schema_version": SCHEMA_VERSION, **notice.content}
    name = _safe_name(json_values.text(notice.content["run"]))
    for stem in (name, *(f"{name}-{number}" for number in range(2, _MAX_NAMES + 2))):
        path = folder / f"{stem}.{file_format}"
        if _write_account(folder / f"{stem}.account.json", path, account):
            if not os.path.lexists(path):
                with (
                    new_file(path) as sink,
                    selection.opened(settings.require_database_url(), results) as table,
                ):
                    writers.write(sink, table, file_format)
            return
    raise DeliveryError(f"{folder} has too many files of the same name.", "Move them away.")


def _write_account(account: Path, path: Path, content: JsonObject) -> bool:
    """Write the account unless the names are taken; return whether it is of this delivery."""
    if not os.path.lexists(account) and not os.path.lexists(path):
        try:
            with new_file(account) as sink:
                sink.write(f"{json.dumps(content, ensure_ascii=False, indent=2)}\n".encode())
        except UsageError:
            if not os.path.lexists(account):
                raise
    return _delivery_of(account) == content["delivery_id"]


def _delivery_of(account: Path) -> object:
    """Return the delivery id in an account; `None` if the path is not an account file."""
    try:
        with contents.opened(account, _ACCOUNT_MEGABYTES, follow_symlinks=False) as file:
            content = json.loads(file.read())
    except (ReadError, OSError, ValueError, RecursionError):
        return None
    return content.get("delivery_id") if isinstance(content, dict) else None


def _safe_name(run: str) -> str:
    """Return a file name for a run's name: it stays in the folder and is not hidden."""
    bare = _UNSAFE.sub("_", run).strip("._-")
    return bare.encode()[:_MAX_BYTES].decode(errors="ignore") or "run"
