"""Pictures of the pages of documents, made of the files they were read from."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from sqlalchemy import select
from sqlalchemy.orm import Session

from chordwise.domain.states import TAKEN_IN
from chordwise.errors import ReadError
from chordwise.readers import contents
from chordwise.readers.capacity import limits
from chordwise.readers.reading import Reader
from chordwise.settings import ReaderSettings
from chordwise.storage.inbox_files import InboxFile, InboxIntake
from chordwise.storage.intakes import Intake

_MAX_NAMES = 10
_REMEMBERED_FILES = 1_000


class PagePictures:
    """Finds the files of documents and shows their pages; safe to share between threads.

    Files are read where they lie, so that one that was moved or changed is not there any more: the
    hash of its bytes decides.
    """

    def __init__(self, settings: ReaderSettings) -> None:
        self._megabytes = limits(settings).max_file_megabytes
        self._reader = Reader(settings)
        self._lock = Lock()
        self._hashes: dict[tuple[int, ...], str] = {}

    def close(self) -> None:
        """End the process that renders."""
        with self._lock:
            self._reader.close()

    def original(self, session: Session, document_id: uuid.UUID) -> tuple[BinaryIO, str] | None:
        """Open a file with the very bytes that a document was read from; return it and its hash.

        `None` where it lies no more where it was: close it otherwise.
        """
        for path, sha256 in _names(session, document_id):
            with suppress(ReadError):
                file = contents.opened(path, self._megabytes, follow_symlinks=True)
                if self._hash(file) == sha256:
                    return file, sha256
                file.close()
        return None

    def png(self, file: BinaryIO, page: int) -> bytes:
        """Return what a page of an open PDF or picture looks like.

        Raises:
            ReadError: The file is neither or damaged, or has no such page.
        """
        with self._lock:
            picture = self._reader.picture(file, page)
        return picture.as_png()

    def _hash(self, file: BinaryIO) -> str:
        """Return the hash of a file, which is read once as long as it does not change.

        Raises:
            ReadError: It cannot be read.
        """
        status = os.fstat(file.fileno())
        state = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        if state not in self._hashes:
            if len(self._hashes) >= _REMEMBERED_FILES:
                self._hashes.clear()
            self._hashes[state] = contents.of_file(file, self._megabytes).sha256
        return self._hashes[state]


def _names(session: Session, document_id: uuid.UUID) -> Iterator[tuple[Path, str]]:
    """Yield where a document was read from, and the hash that the file had; the newest first."""
    found = session.execute(
        select(
            *(Intake.source, Intake.raw_path, Intake.sha256),
            *(InboxFile.stored_path, InboxFile.raw_destination),
        )
        .outerjoin(InboxIntake, InboxIntake.intake_id == Intake.id)
        .outerjoin(InboxFile, InboxFile.id == InboxIntake.inbox_file_id)
        .where(Intake.document_id == document_id, Intake.outcome.in_(TAKEN_IN))
        .order_by(Intake.id.desc())
        .limit(_MAX_NAMES)
    )
    for source, raw_path, sha256, stored_path, raw_destination in found:
        known = (Path(os.fsdecode(each)) for each in (raw_destination, raw_path) if each)
        for path in (*known, Path(stored_path or source)):
            # A name is relative to the folder that its command was in.
            if sha256 is not None and path.is_absolute():
                yield path, sha256
