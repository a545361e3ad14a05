"""Submits what lies in the store: few runs, each of files that came together and ask the same."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Lock

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chordwise.domain.states import InboxStatus
from chordwise.errors import ChordwiseError, LeaseLostError, ServiceUnavailableError, UsageError
from chordwise.pipeline.inbox import moving, scanning, side_cars
from chordwise.pipeline.inbox.store import Store
from chordwise.pipeline.intake.found_files import FileSource, entry_of, marking_last
from chordwise.pipeline.intake.profiles import run_options
from chordwise.pipeline.intake.resume import claim
from chordwise.pipeline.intake.submit import Submission, open_run
from chordwise.pipeline.runtime.context import Context
from chordwise.readers.discovery import FoundFile
from chordwise.readers.printable_names import printable
from chordwise.readers.reading import Reader
from chordwise.settings import ProfileSettings
from chordwise.storage import clock, inbox_files, intake_leases, listed_files
from chordwise.storage.engine import reaching_database
from chordwise.storage.inbox_files import InboxFile
from chordwise.storage.runs import Run

log = structlog.get_logger(__name__)

_LONGEST_SECONDS = 3_600.0
"""For how long a run may stay open while files keep coming."""
MAX_ATTEMPTS = 3
"""How many processes may end while they read a file, before it is set aside."""


@dataclass(slots=True, kw_only=True)
class _OpenRun:
    submission: Submission
    opened_at: float
    last_at: float
    readers: int = 0


class Submitting:
    """Opens runs, takes files into them, and closes them when no more files come.

    Several threads may submit, each with a reader of its own; all else is for one thread.
    `monotonic` is in seconds; `now` names the runs.
    """

    def __init__(
        self,
        context: Context,
        store: Store,
        *,
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._context = context
        self._store = store
        self._monotonic = monotonic
        self._now = now
        self._open: dict[str, _OpenRun] = {}
        self._retired: list[_OpenRun] = []
        self._begun: set[uuid.UUID] = set()
        self._lock = Lock()

    def waiting(self, limit: int) -> list[InboxFile]:
        """Return files that lie in the store and were not submitted, the first taken first."""
        with reaching_database(), self._context.sessions() as session:
            taken = InboxStatus.TAKEN
            return list(inbox_files.in_status(session, self._store.id, taken, limit))

    def needs_to_be_alone(self, file: InboxFile) -> bool:
        """Tell whether no other file may be read beside it: its next loss would be its last."""
        return file.id not in self._begun and file.attempts == MAX_ATTEMPTS - 1

    def submit(self, file: InboxFile, reader: Reader) -> bool:
        """Take everything in a file in; false while somebody still writes to it.

        What a file lacks, or its side-car, is noted with the file and no error here.

        Raises:
            LeaseLostError: Another process takes in for the run; a later call opens another one.
            ServiceUnavailableError: The database cannot be reached; a later call goes on.
            ReadingInterruptedError: The reader was interrupted; a later call goes on.
        """
        stored = self._store.path_of(file.id, file.relative.name)
        if scanning.is_being_written(stored):
            return False
        if self._begin(file):
            if stored.exists():
                file.sha256, file.byte_count = moving.sha256_of(stored), stored.stat().st_size
            try:
                self._take_in(file, stored, FileSource(reader, io.BytesIO()))
            except (LeaseLostError, ServiceUnavailableError):
                raise
            except ChordwiseError as error:
                file.reason, file.message, file.hint = error.code, error.what, error.hint or None
        self._note_submitted(file)
        self._begun.discard(file.id)
        return True

    def close_quiet(self, *, everything: bool = False) -> None:
        """Close the runs that got no file for a while, or all of them.

        Raises:
            ServiceUnavailableError: The database cannot be reached.
        """
        now, quiet = self._monotonic(), self._context.settings.inbox.quiet_seconds
        with self._lock:
            for key, each in list(self._open.items()):
                is_old = now - each.opened_at >= _LONGEST_SECONDS
                if everything or is_old or now - each.last_at >= quiet:
                    self._retired.append(self._open.pop(key))
        # A slow file may still be read into a run that gets no others any more.
        for each in [each for each in self._retired if not each.readers]:
            each.submission.close()
            self._retired.remove(each)

    def close_abandoned(self) -> None:
        """Close the runs that an earlier watcher of this store has left open.

        One with a file that was being taken in stays open: submitting the file goes on with it.

        Raises:
            ServiceUnavailableError: The database cannot be reached.
        """
        ours = {each.submission.run_id for each in (*self._open.values(), *self._retired)}
        with reaching_database(), self._context.sessions.begin() as session:
            is_abandoned = inbox_files.is_submitted_to(self._store.id) & Run.id.not_in(ours)
            intake_leases.finish_all(session, is_abandoned)

    def take_attempts_back(self) -> None:
        """Let no file bear the blame that this process leaves.

        Raises:
            ServiceUnavailableError: The database cannot be reached.
        """
        with reaching_database(), self._context.sessions.begin() as session:
            inbox_files.take_attempts_back(session, self._begun)

    def _begin(self, file: InboxFile) -> bool:
        """Count the attempt of this process, once; false where too many were lost over the file."""
        if file.id in self._begun:
            return True
        if file.attempts >= MAX_ATTEMPTS:
            file.reason = "quarantined"
            file.message = (
                f"Reading {file.name} has ended the process that reads files {MAX_ATTEMPTS} times."
            )
            file.hint = (
                "It probably needs more memory than there is: split it, or give the scheduler "
                "more memory, and drop it again."
            )
            log.error("inbox.quarantined", file=file.name, folder=file.folder)
            return False
        with reaching_database(), self._context.sessions.begin() as session:
            inbox_files.count_attempt(session, file.id)
        self._begun.add(file.id)
        return True

    def _take_in(self, file: InboxFile, stored: Path, source: FileSource) -> None:
        profile = self._profile_of(file)
        with reaching_database(), self._context.sessions() as session:
            done = inbox_files.linked(session, file.id)
        with self._lock:
            run, intake_id = self._place_of(file, stored)
            if run is None and done:
                return  # a kill came between the last document and the row of the file
            run = run or self._run_for(file.profile, profile)
            run.readers += 1
        try:
            shown = printable(str(file.source))
            found = FoundFile(source=shown, path=stored, follow_symlinks=False)
            if intake_id is None:
                also = partial(_note_run, file.id, run.submission.run_id)
                intake_id = run.submission.enlist(entry_of(found, shown), also)
            documents = source.read(found, run.submission.columns, shown)
            for position, (document, is_last) in enumerate(marking_last(documents)):
                if position >= done:
                    also = partial(_link, file.id, position)
                    run.submission.take_in(document, also, of=intake_id, is_last=is_last)
        finally:
            with self._lock:
                run.readers -= 1
                run.last_at = self._monotonic()

    def _place_of(self, file: InboxFile, stored: Path) -> tuple[_OpenRun | None, uuid.UUID | None]:
        """Return the run that a file was being taken into, and where it stands on its list."""
        if file.run_id is None:
            return None, None
        with reaching_database(), self._context.sessions() as session:
            listed = listed_files.at(session, file.run_id, os.fsencode(stored.absolute()))
        if listed is None:
            return None, None
        run = self._open_run(file.run_id) or self._resumed(file.run_id)
        return run, None if run is None else listed.intake_id

    def _open_run(self, run_id: uuid.UUID) -> _OpenRun | None:
        known = (*self._open.values(), *self._retired)
        of_id = (each for each in known if each.submission.run_id == run_id)
        run = next(of_id, None)
        return run if run is not None and run.submission.has_lease() else None

    def _resumed(self, run_id: uuid.UUID) -> _OpenRun | None:
        """Go on with a run of a lost watcher: the lock of the store says that it is gone."""
        submission = claim(self._context, run_id, by_force=True)
        return None if submission is None else self._opened(str(run_id), submission)

    def _opened(self, key: str, submission: Submission) -> _OpenRun:
        at = self._monotonic()
        self._open[key] = _OpenRun(submission=submission, opened_at=at, last_at=at)
        return self._open[key]

    def _profile_of(self, file: InboxFile) -> ProfileSettings:
        profile = side_cars.profile_named(self._context.settings, file.profile)
        side_car = self._store.side_car_of(file.id, file.relative.name)
        if not os.path.lexists(side_car):  # a name that is too long is no error here
            return profile
        if side_car.is_symlink():
            raise UsageError("The side-car is a symbolic link.", "Put the file itself there.")
        merged = side_cars.with_side_car(profile, side_car)
        side_cars.check(self._context.settings, merged)
        return merged

    def _run_for(self, name: str, profile: ProfileSettings) -> _OpenRun:
        """Return the open run of a profile, or a new one."""
        key = f"{name}\n{profile.model_dump_json()}"
        known = self._open.get(key)
        if known is not None and not known.submission.has_lease():
            self._retired.append(self._open.pop(key))
            known = None
        if known is None:
            asked = run_options(self._context.settings, profile, self._run_name(name))
            options = replace(asked, follows=True)
            known = self._opened(key, open_run(self._context, options, self._now()))
        return known

    def _run_name(self, profile: str) -> str:
        """Return a name such as `inbox-contracts-20261125-0213`, numbered where it is taken."""
        stem = "-".join(("inbox", *([profile] if profile else []), f"{self._now():%Y%m%d-%H%M}"))
        with reaching_database(), self._context.sessions() as session:
            taken = select(func.count()).where(Run.name.startswith(stem, autoescape=True))
            count = session.scalar(taken) or 0
        return f"{stem}-{count + 1}" if count else stem

    def _note_submitted(self, file: InboxFile) -> None:
        noted = {
            "status": InboxStatus.SUBMITTED,
            "sha256": file.sha256,
            "byte_count": file.byte_count,
            "reason": file.reason,
            "message": file.message,
            "hint": file.hint,
            "submitted_at": clock.database_now(),
        }
        with reaching_database(), self._context.sessions.begin() as session:
            inbox_files.change(session, file.id, noted)


def _link(file_id: uuid.UUID, position: int, session: Session, intake_id: uuid.UUID) -> None:
    inbox_files.link(session, file_id, intake_id, position)


def _note_run(
    file_id: uuid.UUID, run_id: uuid.UUID, session: Session, _intake_id: uuid.UUID
) -> None:
    inbox_files.change(session, file_id, {"run_id": run_id})
