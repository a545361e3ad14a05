"""Uploaded files, which are stored as long as their run exists."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path, PurePosixPath

from sqlalchemy import select
from starlette.datastructures import UploadFile

from chordwise.domain.identifiers import id_in
from chordwise.domain.visible_text import printable
from chordwise.embedded.home import Home, make_folder
from chordwise.errors import ServiceUnavailableError
from chordwise.readers.discovery import FoundFile
from chordwise.storage.database import Database
from chordwise.storage.record import in_ids, new_id
from chordwise.storage.runs import Run

# The run is stored after its files, so young folders may have no run yet.
_LEAST_AGE = timedelta(hours=1)
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")


@contextmanager
def stored(home: Home, run_id: uuid.UUID, sent: Sequence[UploadFile]) -> Iterator[list[FoundFile]]:
    """Store the files of a run, each in a separate folder; delete them if the block fails."""
    folder = make_folder(_folder(home) / run_id.hex)
    try:
        yield [_stored(folder / str(number), each) for number, each in enumerate(sent, start=1)]
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _stored(folder: Path, sent: UploadFile) -> FoundFile:
    shown = printable(PurePosixPath((sent.filename or "").replace("\\", "/")).name or "file")
    path = make_folder(folder) / f"file{_suffix(shown)}"
    with path.open("xb") as file:
        shutil.copyfileobj(sent.file, file)
    return FoundFile(source=shown, path=path, follow_symlinks=False)


def _suffix(name: str) -> str:
    """Return the suffix of a file name, which indicates the format, if it is alphanumeric."""
    suffix = PurePosixPath(name).suffix
    return suffix if _SUFFIX.fullmatch(suffix) else ""


def forget(home: Home, database: Database, least_age: timedelta = _LEAST_AGE) -> None:
    """Delete the files of runs that no longer exist; none while the database is unavailable."""
    before = uuid.UUID(int=new_id().int - (int(least_age / timedelta(milliseconds=1)) << 80))
    folders = {id_in(each.name): each for each in _folder(home).glob("*")}
    old = {run_id: each for run_id, each in folders.items() if run_id and run_id < before}
    if not old:
        return
    with suppress(ServiceUnavailableError), database.read() as session:
        kept = set(session.scalars(select(Run.id).where(in_ids(Run.id, list(old)))))
        for run_id in old.keys() - kept:
            shutil.rmtree(old[run_id], ignore_errors=True)


def _folder(home: Home) -> Path:
    return make_folder(home.web / "uploads")
