"""Pictures of the pages of documents, rendered from their original files."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from chordwise.domain.states import TAKEN_IN
from chordwise.errors import ReadError
from chordwise.readers import contents, failures
from chordwise.readers.contents import Content
from chordwise.readers.limits import file_limits
from chordwise.readers.reader import Reader
from chordwise.settings import ReaderSettings
from chordwise.storage.inbox_files import InboxFile, InboxIntake
from chordwise.storage.intakes import Intake

_MAX_NAMES = 10
_REMEMBERED_FILES = 1_000
_REMEMBERED_PARTS = 16
_PAGE_SECONDS = 10.0
_FILE_SECONDS = 30.0
# What a page may take before its time counts, and how much longer all pages of a file may take.
_FREE_SECONDS = 1.0
_MAX_EXTRA_SECONDS = 30.0
_REMEMBERED_FAILURES = 10_000
_LANES = 3

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file that a document was read from, or `part` of it, with the hash at that time."""

    path: Path
    part: str
    sha256: str


class PagePictures:
    """Finds the files of documents and renders their pages; safe to share between threads.

    Files are read in place. A file that was moved or changed counts as missing, by the hash of its
    bytes. Files in archives and messages are extracted, and the most recent ones are kept.

    Several processes render, and one of them renders all pages of a file, so that a file that takes
    long delays only a few others. A page has a time limit, a page that failed is not tried again,
    and neither is a file whose pages have taken long together.
    """

    def __init__(self, settings: ReaderSettings) -> None:
        self._megabytes = file_limits(settings).max_file_megabytes
        seconds = {
            "timeout_seconds": min(settings.timeout_seconds, _PAGE_SECONDS),
            "file_timeout_seconds": min(settings.file_timeout_seconds, _FILE_SECONDS),
        }
        limited = settings.model_copy(update=seconds)
        self._reader = Reader(limited)
        self._lock = Lock()
        self._lanes = [(Lock(), Reader(limited)) for _ in range(_LANES)]
        self._failures: dict[tuple[str, int], ReadError] = {}
        self._extra_seconds: dict[str, float] = {}
        self._hashes: dict[tuple[int, ...], str] = {}
        self._parts: dict[tuple[object, ...], Content | None] = {}

    def close(self) -> None:
        """End the processes that render pages."""
        for lock, reader in ((self._lock, self._reader), *self._lanes):
            with lock:
                reader.close()
        self._forget_parts()

    def original(self, sources: Iterable[SourceFile]) -> tuple[BinaryIO, str] | None:
        """Open a file with exactly the bytes that a document was read from; return it and its hash.

        Returns `None` if there is no such file. The caller closes the file.
        """
        for source in sources:
            with suppress(ReadError):
                file = contents.opened(source.path, self._megabytes, follow_symlinks=True)
                if not source.part and self._hash(file) == source.sha256:
                    return file, source.sha256
                with file:
                    if source.part and (part := self._part(file, source)):
                        return part, source.sha256
        return None

    def _part(self, file: BinaryIO, source: SourceFile) -> BinaryIO | None:
        """Return a part of an open file, if its hash matches; it is extracted once."""
        key = (*_state_of(file), source.part, source.sha256)
        with self._lock:
            if key not in self._parts:
                if len(self._parts) >= _REMEMBERED_PARTS:
                    self._forget_parts()
                self._parts[key] = None  # unless it can be extracted
                part = self._reader.part(file, source.part, "")
                if part is not None and part.sha256 != source.sha256:
                    part.close()
                    part = None
                self._parts[key] = part
            cached = self._parts[key]
            return None if cached is None else os.fdopen(os.dup(cached.file.fileno()), "rb", 0)

    def _forget_parts(self) -> None:
        for part in self._parts.values():
            if part is not None:
                part.close()
        self._parts.clear()

    def png(self, file: BinaryIO, sha256: str, page: int) -> bytes:
        """Render a page of an open PDF or picture with this hash as PNG.

        Raises:
            ReadError: The file has another type, is damaged, has no such page, or takes too long.
        """
        lock, reader = self._lanes[int(sha256, 16) % _LANES]
        with lock:
            if self._extra_seconds.get(sha256, 0) >= _MAX_EXTRA_SECONDS:
                raise failures.unreadable("takes too long to show.", "Open it itself.", "timeout")
            if failure := self._failures.get((sha256, page)):
                raise failure
            begun = time.monotonic()
            try:
                return reader.picture(file, page).as_png()
            except ReadError as error:
                _bounded(self._failures)[sha256, page] = error
                raise
            finally:
                extra = max(0.0, time.monotonic() - begun - _FREE_SECONDS)
                _bounded(self._extra_seconds)[sha256] = self._extra_seconds.get(sha256, 0) + extra

    def _hash(self, file: BinaryIO) -> str:
        """Return the hash of a file; cached until the file changes."""
        state = _state_of(file)
        if state not in self._hashes:
            if len(self._hashes) >= _REMEMBERED_FILES:
                self._hashes.clear()
            self._hashes[state] = contents.content_of_file(file, self._megabytes).sha256
        return self._hashes[state]


def _bounded(remembered: dict[K, V]) -> dict[K, V]:
    """Return what is remembered, without the oldest entry if there are too many."""
    if len(remembered) >= _REMEMBERED_FAILURES:
        remembered.pop(next(iter(remembered)), None)
    return remembered


def _state_of(file: BinaryIO) -> tuple[int, ...]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def sources_of(session: Session, document_id: uuid.UUID) -> Sequence[SourceFile]:
    """Return the files that a document was read from, newest first."""
    rows = session.execute(
        select(Intake.source, Intake.raw_path, Intake.sha256, InboxFile.raw_destination)
        .outerjoin(InboxIntake, InboxIntake.intake_id == Intake.id)
        .outerjoin(InboxFile, InboxFile.id == InboxIntake.inbox_file_id)
        .where(Intake.document_id == document_id, Intake.outcome.in_(TAKEN_IN))
        .order_by(Intake.id.desc())
        .limit(_MAX_NAMES)
    )
    sources: list[SourceFile] = []
    for source, raw_path, sha256, raw_destination in rows:
        paths = [Path(os.fsdecode(raw)) for raw in (raw_destination, raw_path) if raw]
        for path in (*paths, Path(source)):
            # A relative name refers to the working folder of its command, which is unknown here.
            if sha256 is None or not path.is_absolute():
                continue
            sources.append(SourceFile(path=path, part="", sha256=sha256))
            # A file of an inbox may have a different name in its source.
            whole = f"{path.name}#" if f"{path.name}#" in source else "#"
            if part := source.partition(whole)[2]:
                sources.append(SourceFile(path=path, part=f"#{part}", sha256=sha256))
    return sources
