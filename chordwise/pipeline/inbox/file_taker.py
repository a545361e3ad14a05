"""Takes files from the inboxes into the store; the row is written before the file is moved."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import structlog
from sqlalchemy import delete

from chordwise.domain.inbox import Fingerprint, side_car_name
from chordwise.domain.states import InboxStatus
from chordwise.domain.visible_text import printable
from chordwise.pipeline.inbox import folders, scan
from chordwise.pipeline.inbox.folders import Inbox, Store
from chordwise.pipeline.runtime.context import Context
from chordwise.storage import inbox_files
from chordwise.storage.inbox_files import InboxFile
from chordwise.storage.record import new_id

log = structlog.get_logger(__name__)

InterruptedMove: TypeAlias = tuple[uuid.UUID, Callable[[], None]]
"""The id of a file whose move was interrupted, and a function that completes or undoes the move.

The function may raise OSError if the file cannot be moved; no file is lost, and a later call
continues.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedFile:
    """A file of an inbox that is to be taken, in the state in which it was scanned."""

    path: Path
    inbox: Inbox
    profile: str
    prints: tuple[Fingerprint, ...]


class FileTaker:
    """Moves files from the inboxes of one home into its store, and recovers interrupted moves."""

    def __init__(self, context: Context, store: Store, rename: folders.Rename = os.rename) -> None:
        self._context = context
        self._commit = context.database.commit
        self._store = store
        self._rename = rename
        self._failed_undos: list[InterruptedMove] = []

    def take(self, candidates: Sequence[ScannedFile]) -> list[InboxFile | OSError | None]:
        """Move files with their side-cars into the store.

        The result contains, for each file, its row, `None` if the file differs from the scanned
        one, or the error that prevented the move. After an error the file is back in its inbox, or
        is returned by `take_failed_undos`.

        Raises:
            ServiceUnavailableError: The database cannot be reached; see `interrupted_moves`.
        """
        files = [self._row(candidate) for candidate in candidates]
        self._commit(lambda session: session.add_all(files))
        moved = [self._moved(*pair) for pair in zip(files, candidates, strict=True)]
        taken_ids = [file.id for file in moved if isinstance(file, InboxFile)]
        values = {"status": InboxStatus.TAKEN}
        self._commit(lambda session: inbox_files.change_all(session, taken_ids, values))
        for file in moved:
            if isinstance(file, InboxFile):
                file.status = InboxStatus.TAKEN
        return moved

    def _moved(self, file: InboxFile, candidate: ScannedFile) -> InboxFile | OSError | None:
        try:
            self._store.create(file.id, candidate.path)
            for source, stored, token in self._parts(file.id, file.source):
                if os.path.lexists(source):
                    folders.take(source, stored, token, self._rename)
            is_good = self._is_as_seen(file, candidate.prints)
        except FileNotFoundError:
            is_good = False  # another process took it, or it was removed
        except OSError as error:
            self._try_undo(file)
            return error
        if not is_good:
            self._try_undo(file)
            return None
        return file

    def take_failed_undos(self) -> list[InterruptedMove]:
        """Return, once, the files that could neither be taken nor restored."""
        moves, self._failed_undos = self._failed_undos, []
        return moves

    def interrupted_moves(self) -> list[InterruptedMove]:
        """Return all moves that a kill interrupted, including those of `take_failed_undos`."""
        self._failed_undos = []
        orphans = set(self._store.ids())  # read before the rows: a row precedes its sub-folder
        with self._context.database.read() as session:
            files = inbox_files.in_status(session, self._store.id, InboxStatus.TAKING, None)
            orphans -= inbox_files.undelivered_ids(session, list(orphans))
        return [
            *((file.id, partial(self._finish, file)) for file in files),
            *((file_id, partial(self._restore_orphan, file_id)) for file_id in orphans),
        ]

    def _row(self, candidate: ScannedFile) -> InboxFile:
        path, inbox = candidate.path, candidate.inbox
        file_id, relative = new_id(), path.relative_to(inbox.folder)
        return InboxFile(
            id=file_id,
            store_id=self._store.id,
            folder=str(inbox.folder),
            name=printable(str(relative)),
            raw_name=os.fsencode(relative),
            profile=candidate.profile,
            status=InboxStatus.TAKING,
            stored_path=printable(str(self._store.path_of(file_id, path.name))),
        )

    def _parts(self, file_id: uuid.UUID, source: Path) -> Iterator[tuple[Path, Path, str]]:
        """Yield source, path in the store and token of the side-car and then of the file."""
        name, token = source.name, file_id.hex
        side_car = self._store.side_car_of(file_id, name)
        yield source.with_name(side_car_name(name)), side_car, f"{token}-side-car"
        yield source, self._store.path_of(file_id, name), token

    def _is_as_seen(self, file: InboxFile, scanned: tuple[Fingerprint, ...]) -> bool:
        """Return whether the moved file is the one that was scanned."""
        stored = self._store.stored(file)
        prints = scan.fingerprints(stored)
        if prints is None or scan.refusal(stored) is not None or len(prints) != len(scanned):
            return False
        # A copy has a different inode.
        return all(
            (now.size, now.modified_ns) == (seen.size, seen.modified_ns)
            for now, seen in zip(prints, scanned, strict=True)
        )

    def _finish(self, file: InboxFile) -> None:
        for source, stored, token in self._parts(file.id, file.source):
            mark = folders.hidden_path(source, token)
            if os.path.lexists(mark):
                folders.finish_taking(mark, stored)
        stored = self._store.stored(file)
        if os.path.lexists(stored):
            if folders.is_copy(stored, file.source):  # a kill interrupted its return
                file.source.unlink()
            values = {"status": InboxStatus.TAKEN}
            self._commit(lambda session: inbox_files.change(session, file.id, values))
        else:
            self._undo(file)
        log.warning("inbox.recovered", file=file.name, folder=file.folder)

    def _try_undo(self, file: InboxFile) -> None:
        try:
            self._undo(file)
        except OSError:
            self._failed_undos.append((file.id, partial(self._undo, file)))

    def _undo(self, file: InboxFile) -> None:
        self._restore(file.id, file.source)
        self._commit(
            lambda session: session.execute(delete(InboxFile).where(InboxFile.id == file.id))
        )

    def _restore_orphan(self, file_id: uuid.UUID) -> None:
        """Move a file without a row in the database back to its inbox, to be taken again."""
        if not self._store.folder_of(file_id).exists():
            return
        origin = self._store.origin(file_id)
        if origin is None:
            if not any(self._store.folder_of(file_id).iterdir()):
                self._store.remove(file_id)
            return
        origin.parent.mkdir(parents=True, exist_ok=True)
        self._restore(file_id, origin)
        log.warning("inbox.restored", file=printable(str(origin)))

    def _restore(self, file_id: uuid.UUID, source: Path) -> None:
        for part, stored, token in self._parts(file_id, source):
            _restore(part, stored, token)
        self._store.remove(file_id)


def _restore(source: Path, stored: Path, token: str) -> None:
    """Move a file back to its original path, or beside it if that path is taken now."""
    mark = folders.hidden_path(source, token)
    if os.path.lexists(mark) and os.path.lexists(stored):
        mark.unlink()  # the copy is complete
    moved = stored if os.path.lexists(stored) else mark
    if not os.path.lexists(moved):
        return
    if folders.is_copy(moved, source):  # moved back before a kill
        folders.hidden_path(source, f"{token}-back").unlink(missing_ok=True)
        moved.unlink()
        return
    folders.move_numbered(moved, source, f"{token}-back")
