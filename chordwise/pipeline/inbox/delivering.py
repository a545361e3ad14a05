"""Delivers files whose analyses have ended: into done/ or failed/, each with its note."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

from chordwise.domain.inbox_names import is_inside, names_like, note_name, side_car_name
from chordwise.domain.states import InboxStatus
from chordwise.pipeline.inbox import moving, notes
from chordwise.pipeline.inbox.places import Place
from chordwise.pipeline.inbox.store import Store
from chordwise.pipeline.runtime.context import Context
from chordwise.readers.printable_names import printable
from chordwise.storage import clock, inbox_files
from chordwise.storage.engine import reaching_database
from chordwise.storage.inbox_files import InboxFile

_NOTE_BYTES = 1024 * 1024
"""A larger note waits in a temporary file for its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether everything that was asked of a file succeeded, and the note that says so.

    `trouble` is what its row lacks of the reason, by column.
    """

    is_done: bool
    note: IO[str]
    trouble: Mapping[str, str | None]


class Delivering:
    """Moves files out of the store; where they go is noted first, so that it can go on."""

    def __init__(self, context: Context, store: Store) -> None:
        self._context = context
        self._store = store

    def ready(self, limit: int) -> list[InboxFile]:
        """Return files to deliver: those that a kill left half delivered, then those that are due.

        Raises:
            ServiceUnavailableError: The database cannot be reached.
        """
        with reaching_database(), self._context.sessions() as session:
            begun = inbox_files.in_status(session, self._store.id, InboxStatus.DELIVERING, limit)
            return [*begun, *inbox_files.ready(session, self._store.id, limit)]

    def deliver(self, file: InboxFile) -> Path:
        """Bring a file to its place, with its side-car and its note; return where it lies.

        Raises:
            OSError: The place cannot be written to; the file is safe, and a later call goes on.
            ServiceUnavailableError: The database cannot be reached; the same.
        """
        stored = self._store.path_of(file.id, file.relative.name)
        with self._judged(file) as found:
            destination = self._resumed(file, stored) or self._placed(file, stored, found)
            self._add_side_car(file, destination)
            self._add_note(file, destination, found)
            self._store.end(file.id)
            self._finish(file, destination, found)
        return destination

    @contextmanager
    def _judged(self, file: InboxFile) -> Iterator[Verdict]:
        with SpooledTemporaryFile(_NOTE_BYTES, "w+", encoding="utf-8") as note:
            with reaching_database(), self._context.sessions() as session:
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
                is_done = notes.write(note, session, file, clock.read(session))
                is_told = is_done or file.reason is not None
                trouble = {} if is_told else inbox_files.first_trouble(session, file.id)
            yield Verdict(is_done=is_done, note=note, trouble=trouble)

    def _resumed(self, file: InboxFile, stored: Path) -> Path | None:
        """Return where the file was brought before a kill, if it got there."""
        if file.raw_destination is None:
            return None
        destination = Path(os.fsdecode(file.raw_destination))
        if os.path.lexists(stored) and moving.is_copy(stored, destination):
            moving.mark_beside(destination, file.id.hex).unlink(missing_ok=True)
            stored.unlink()
        is_there = not os.path.lexists(stored) and os.path.lexists(destination)
        return destination if is_there else None

    def _placed(self, file: InboxFile, stored: Path, found: Verdict) -> Path:
        """Move the file to the first free name, which is noted before."""
        folder = _folder_for(file, found)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names_like(file.relative.name):
            beside = (name, note_name(name), side_car_name(name))
            if any(os.path.lexists(folder / each) for each in beside):
                continue
            destination = folder / name
            self._note_destination(file, destination)
            try:
                moving.place(stored, destination, file.id.hex)
            except FileExistsError:
                continue
            return destination
        raise AssertionError("there is always another name")

    def _add_side_car(self, file: InboxFile, destination: Path) -> None:
        side_car = self._store.side_car_of(file.id, file.relative.name)
        if os.path.lexists(side_car):
            beside = destination.with_name(side_car_name(destination.name))
            _place_freely(side_car, beside, f"{file.id.hex}-side-car")

    def _add_note(self, file: InboxFile, destination: Path, found: Verdict) -> None:
        note = destination.with_name(note_name(destination.name))
        mark = moving.mark_beside(note, f"{file.id.hex}-note")
        if os.path.lexists(note):  # written before a kill: the name was free when it was chosen
            mark.unlink(missing_ok=True)
            return
        found.note.seek(0)
        with mark.open("w", encoding="utf-8") as written:
            shutil.copyfileobj(found.note, written)
        _place_freely(mark, note, f"{file.id.hex}-note-again")

    def _note_destination(self, file: InboxFile, destination: Path) -> None:
        self._write(file, status=InboxStatus.DELIVERING, raw_destination=os.fsencode(destination))

    def _finish(self, file: InboxFile, destination: Path, found: Verdict) -> None:
        self._write(
            file,
            status=InboxStatus.DONE if found.is_done else InboxStatus.FAILED,
            delivered_path=printable(str(destination)),
            delivered_at=clock.database_now(),
            **found.trouble,
        )

    def _write(self, file: InboxFile, **values: object) -> None:
        with reaching_database(), self._context.sessions.begin() as session:
            inbox_files.change(session, file.id, values)


def _folder_for(file: InboxFile, found: Verdict) -> Path:
    place, relative = Place(folder=Path(file.folder)), file.relative
    if not is_inside(relative):
        relative = Path(relative.name)
    return (place.done if found.is_done else place.failed) / relative.parent


def _place_freely(source: Path, target: Path, token: str) -> None:
    for name in names_like(target.name):
        try:
            moving.place(source, target.with_name(name), token)
        except FileExistsError:
            continue
        return
