"""The answers of a run as a file in a folder, with the account of the run beside it.

The account is written first. It claims the name: it says for which delivery the file is, so that a
delivery that is made again finds what it has done, and never takes another file for its own.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from chordwise.domain import json_values
from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.json_values import JsonObject
from chordwise.errors import DeliveryError, UsageError
from chordwise.pipeline.exports.new_file import new_file

_UNSAFE = re.compile(r"[^\w.-]+")
_MOST_BYTES = 150
_MOST_NAMES = 1_000


def drop(
    folder: Path,
    wanted: ExportFormat,
    content: JsonObject,
    write: Callable[[BinaryIO], object],
) -> Path:
    """Put the account of a run and its answers into a folder, once; return the path of the latter.

    `content` holds the `delivery_id` and the run's name; `write` writes the answers.

    Raises:
        DeliveryError: The folder is missing or full of files of this name.
        UsageError: A file cannot be written.
    """
    if not folder.is_dir():
        raise DeliveryError(f"There is no folder {folder}.", "Make it, or set delivery.folder.")
    for stem in _stems(_safe(json_values.text(content["run"]))):
        path = folder / f"{stem}.{wanted}"
        if _claim(folder / f"{stem}.account.json", path, content):
            if not os.path.lexists(path):
                with new_file(path) as sink:
                    write(sink)
            return path
    raise DeliveryError(f"{folder} is full of files of the same name.", "Move them away.")


def _claim(account: Path, path: Path, content: JsonObject) -> bool:
    """Write the account, or find that it is ours already; a name that others use is not claimed."""
    if not os.path.lexists(account) and not os.path.lexists(path):
        try:
            with new_file(account) as sink:
                sink.write(f"{json.dumps(content, ensure_ascii=False, indent=2)}\n".encode())
        except UsageError:
            if not os.path.lexists(account):
                raise
    return _delivery_of(account) == content["delivery_id"]


def _delivery_of(account: Path) -> object:
    try:
        found = json.loads(account.read_bytes())
    except (OSError, ValueError):
        return None
    return found.get("delivery_id") if isinstance(found, dict) else None


def _safe(run: str) -> str:
    """Return a run's name as a name of a file: nothing leads out of the folder, or is hidden."""
    bare = _UNSAFE.sub("_", run).strip("._-")
    return bare.encode()[:_MOST_BYTES].decode(errors="ignore") or "run"


def _stems(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in itertools.islice(itertools.count(2), _MOST_NAMES))
