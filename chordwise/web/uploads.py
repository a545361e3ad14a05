"""Uploaded files, which are stored as long as their run exists."""

from __future__ import annotations

import re
import shutil
import tempfile
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
def stored(home: Home, run_id: uuid.UUID, files: Sequence[UploadFile]) -> Iterator[list[FoundFile]]:
    """Store the files of a run, each in a separate folder; delete them if the block fails."""
    folder = make_folder(_folder(home) / run_id.hex)
    try:
        yield [_stored(folder / str(number), file) for number, file in enumerate(files, start=1)]
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def lent(files: Sequence[UploadFile]) -> Iterator[list[FoundFile]]:
    """Store files until the end of the block."""
    with tempfile.TemporaryDirectory() as folder:
        yield [_stored(Path(folder, str(number)), file) for number, file in enumerate(files)]


def _stored(folder: Path, upload: UploadFile) -> FoundFile:
    name = printable(PurePosixPath((upload.filename or "").replace("\\", "/")).name or "file")
    suffix = PurePosixPath(name).suffix  # it indicates the format
    path = make_folder(folder) / f"file{suffix if _SUFFIX.fullmatch(suffix) else ''}"
    with path.open("xb") as file:
        shutil.copyfileobj(upload.file, file)
    return FoundFile(source=name, path=path, follow_symlinks=False)


def forget(home: Home, database: Database, least_age: timedelta = _LEAST_AGE) -> None:
    """Delete the files of runs that no longer exist; none while the database is unavailable."""
    before = uuid.UUID(int=new_id().int - (int(least_age / timedelta(milliseconds=1)) << 80))
    folders = {id_in(path.name): path for path in _folder(home).glob("*")}
    old = {run_id: path for run_id, path in folders.items() if run_id and run_id < before}
    if not old:
        return
    with suppress(ServiceUnavailableError), database.read() as session:
        existing_ids = set(session.scalars(select(Run.id).where(in_ids(Run.id, list(old)))))
        for run_id in old.keys() - existing_ids:
            shutil.rmtree(old[run_id], ignore_errors=True)


def _folder(home: Home) -> Path:
    return make_folder(home.web / "uploads")
