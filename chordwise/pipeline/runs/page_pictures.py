"""Pictures of the pages of documents, rendered from their original files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from sqlalchemy import select
from sqlalchemy.orm import Session

from chordwise.domain.states import TAKEN_IN
from chordwise.errors import ReadError
from chordwise.readers import contents
from chordwise.readers.capacity import limits
from chordwise.readers.contents import Content
from chordwise.readers.reader import Reader
from chordwise.settings import ReaderSettings
from chordwise.storage.inbox_files import InboxFile, InboxIntake
from chordwise.storage.intakes import Intake

_MAX_NAMES = 10
_REMEMBERED_FILES = 1_000
_REMEMBERED_PARTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A file that a document was read from, or `part` of it, with the hash at that time."""

    path: Path
    part: str
    sha256: str


class PagePictures:
    """Finds the files of documents and renders their pages; safe to share between threads.

    Files are read in place. A file that was moved or changed counts as missing, by the hash of its
    bytes. Files in archives and messages are extracted, and the most recent ones are kept.
    """

    def __init__(self, settings: ReaderSettings) -> None:
        self._megabytes = limits(settings).max_file_megabytes
        self._reader = Reader(settings)
        self._lock = Lock()
        self._hashes: dict[tuple[int, ...], str] = {}
        self._parts: dict[tuple[object, ...], Content | None] = {}

    def close(self) -> None:
        """End the process that renders pages."""
        with self._lock:
            self._reader.close()
            self._forget_parts()

    def original(self, names: Iterable[Named]) -> tuple[BinaryIO, str] | None:
        """Open a file with exactly the bytes that a document was read from; return it and its hash.

        Returns `None` if there is no such file. The caller closes the file.
        """
        for named in names:
            with suppress(ReadError):
                file = contents.opened(named.path, self._megabytes, follow_symlinks=True)
                if not named.part and self._hash(file) == named.sha256:
                    return file, named.sha256
                with file:
                    if named.part and (part := self._part(file, named)):
                        return part, named.sha256
        return None

    def _part(self, file: BinaryIO, named: Named) -> BinaryIO | None:
        """Return a part of an open file, if its hash matches; it is extracted once.

        Raises:
            ReadError: The parts of the open file cannot be read.
        """
        key = (*_state_of(file), named.part, named.sha256)
        with self._lock:
            if key not in self._parts:
                if len(self._parts) >= _REMEMBERED_PARTS:
                    self._forget_parts()
                found = self._reader.part(file, named.part, "")
                if found is not None and found.sha256 != named.sha256:
                    found.close()
                    found = None
                self._parts[key] = found
            kept = self._parts[key]
            return None if kept is None else os.fdopen(os.dup(kept.file.fileno()), "rb", 0)

    def _forget_parts(self) -> None:
        for part in self._parts.values():
            if part is not None:
                part.close()
        self._parts.clear()

    def png(self, file: BinaryIO, page: int) -> bytes:
        """Render a page of an open PDF or picture as PNG.

        Raises:
            ReadError: The file has another type, is damaged, or has no such page.
        """
        with self._lock:
            picture = self._reader.picture(file, page)
        return picture.as_png()

    def _hash(self, file: BinaryIO) -> str:
        """Return the hash of a file; cached until the file changes.

        Raises:
            ReadError: It cannot be read.
        """
        state = _state_of(file)
        if state not in self._hashes:
            if len(self._hashes) >= _REMEMBERED_FILES:
                self._hashes.clear()
            self._hashes[state] = contents.content_of_file(file, self._megabytes).sha256
        return self._hashes[state]


def _state_of(file: BinaryIO) -> tuple[int, ...]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def names_of(session: Session, document_id: uuid.UUID) -> Sequence[Named]:
    """Return the files that a document was read from, newest first."""
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
    names: list[Named] = []
    for source, raw_path, sha256, stored_path, raw_destination in found:
        known = [Path(os.fsdecode(each)) for each in (raw_destination, raw_path) if each]
        for path in (*known, Path(stored_path or source)):
            # A relative name refers to the working folder of its command, which is unknown here.
            if sha256 is None or not path.is_absolute():
                continue
            names.append(Named(path=path, part="", sha256=sha256))
            # A file of an inbox may have a different name in its source.
            whole = f"{path.name}#" if f"{path.name}#" in source else "#"
            if part := source.partition(whole)[2]:
                names.append(Named(path=path, part=f"#{part}", sha256=sha256))
    return names
