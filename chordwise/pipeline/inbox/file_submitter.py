"""Submits the files of the store; files that arrive together with the same options share a run."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from threading import Lock

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chordwise.domain.states import InboxStatus
from chordwise.domain.visible_text import printable
from chordwise.errors import (
    ChordwiseError,
    LeaseLostError,
    RunCancelledError,
    ServiceUnavailableError,
    UsageError,
)
from chordwise.pipeline.inbox import folders, scan
from chordwise.pipeline.inbox.folders import Store
from chordwise.pipeline.inbox.reading_threads import ReadingTask
from chordwise.pipeline.inbox.scan import check, profile_named, with_side_car
from chordwise.pipeline.intake.document_batches import BatchWriter, Offered
from chordwise.pipeline.intake.found_files import FileSource, entry_of, marking_last
from chordwise.pipeline.intake.run_options import run_options
from chordwise.pipeline.intake.submit import Submission, claim, open_run
from chordwise.pipeline.runtime.context import Context
from chordwise.readers.discovery import FoundFile
from chordwise.readers.reader import Reader, ReadingInterruptedError
from chordwise.settings import Profile
from chordwise.storage import inbox_files, intakes
from chordwise.storage.inbox_files import InboxFile
from chordwise.storage.runs import Run

log = structlog.get_logger(__name__)

_MAX_SECONDS = 3_600.0
"""The maximum time that a run stays open while files keep arriving."""
MAX_ATTEMPTS = 3
"""The number of processes that may die while reading a file before it is quarantined."""


@dataclass(slots=True, kw_only=True)
class _OpenRun:
    submission: Submission
    opened_at: float
    last_at: float
    readers: int = 0


@dataclass(slots=True, kw_only=True)
class _Placed:
    """A file of the store with its run; `done` is the number of its documents already taken in.

    `of` is the intake id of its entry on the list of the run, `None` if it is not listed.
    """

    file: InboxFile
    stored_file: FoundFile
    run: _OpenRun
    done: int
    of: uuid.UUID | None


class FileSubmitter:
    """Opens runs, takes files into them, and closes them when no more files arrive.

    Several threads may call `submit`, each with its own reader; all other methods are for one
    thread. `monotonic` is in seconds; `now` is used in the names of the runs.
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
        """Return files of the store that are not submitted yet, the first taken first."""
        with self._context.database.read() as session:
            return list(inbox_files.in_status(session, self._store.id, InboxStatus.TAKEN, limit))

    def is_last_attempt(self, file: InboxFile) -> bool:
        """Return whether no other file may be read at the same time: this is its last attempt."""
        return file.id not in self._begun and file.attempts == MAX_ATTEMPTS - 1

    def submit(self, task: ReadingTask, reader: Reader) -> None:
        """Take in the documents of the files of a task, and record the outcome of each file in it.

        Files are stored together in few transactions. Errors of a file or its side-car are recorded
        with the file and not raised. A file that is still being written is not submitted; a file
        whose reading was interrupted has the outcome `ReadingInterruptedError`, and a later call
        continues with it.

        Raises:
            LeaseLostError: Another process holds the intake; a later call opens another run.
            ServiceUnavailableError: The database cannot be reached; a later call continues.
        """
        unfinished_ids = {
            file.id for file in task.files if scan.is_being_written(self._store.stored(file))
        }
        task.outcomes.update(dict.fromkeys(unfinished_ids, False))
        files = [file for file in task.files if file.id not in unfinished_ids]
        self._begin(files)
        placed: list[_Placed] = []
        try:
            self._place(files, placed)
            for run in {id(place.run): place.run for place in placed}.values():
                self._enlist([place for place in placed if place.run is run and place.of is None])
            self._read(task, [place for place in placed if place.of is not None], reader)
        finally:
            with self._lock:
                for place in placed:
                    place.run.readers -= 1
                    place.run.last_at = self._monotonic()
        unplaced = {file.id for file in files} - {place.file.id for place in placed}
        ended = [
            file
            for file in files
            if file.id not in task.outcomes and (file.reason is not None or file.id in unplaced)
        ]
        if ended:
            with self._context.database.write() as session:
                inbox_files.record_submitted(session, ended)
            self._record_outcomes(task, ended)

    def close_quiet(self, *, everything: bool = False) -> None:
        """Close the runs that received no file for a while, or all of them."""
        now, quiet = self._monotonic(), self._context.settings.inbox.quiet_seconds
        with self._lock:
            for key, run in list(self._open.items()):
                is_old = now - run.opened_at >= _MAX_SECONDS
                if everything or is_old or now - run.last_at >= quiet:
                    self._retired.append(self._open.pop(key))
        # A slow file may still be read into a run that accepts no further files.
        for run in [run for run in self._retired if not run.readers]:
            run.submission.close()
            self._retired.remove(run)

    def close_abandoned(self) -> None:
        """Close the runs that an earlier watcher of this store left open.

        A run with a partly submitted file stays open: submitting the file continues that run.
        """
        open_ids = {run.submission.run_id for run in (*self._open.values(), *self._retired)}
        with self._context.database.write() as session:
            is_abandoned = inbox_files.is_submitted_to(self._store.id) & Run.id.not_in(open_ids)
            intakes.finish_all(session, is_abandoned)

    def subtract_attempts(self) -> None:
        """Subtract the attempts of this process, which is stopping normally."""
        with self._context.database.write() as session:
            inbox_files.undo_attempts(session, self._begun)

    def _begin(self, files: Sequence[InboxFile]) -> None:
        """Count one attempt of this process per new file; quarantine those with too many."""
        new = [file for file in files if file.id not in self._begun]
        for file in new:
            if file.attempts >= MAX_ATTEMPTS:
                file.reason = "quarantined"
                file.message = (
                    f"The process that reads files has crashed {MAX_ATTEMPTS} times while it read "
                    f"{file.name}."
                )
                file.hint = (
                    "It probably needs more memory than is available. Split it, or give the "
                    "scheduler more memory, and put it into the inbox again."
                )
                log.error("inbox.quarantined", file=file.name, folder=file.folder)
        begun = {file.id for file in new if file.reason is None}
        if begun:
            with self._context.database.write() as session:
                inbox_files.change_all(session, begun, {"attempts": InboxFile.attempts + 1})
        self._begun |= begun

    def _place(self, files: Sequence[InboxFile], placed: list[_Placed]) -> None:
        """Add the files that are to be taken in to `placed`, each with its run.

        The other files have a reason for refusal, or were completely taken in before a kill.
        """
        leased: set[str] = set()
        for file in files:
            if file.reason is not None:
                continue
            stored = self._store.stored(file)
            try:
                if stored.exists():
                    file.sha256, file.byte_count = folders.sha256_of(stored), stored.stat().st_size
                place = self._with_run(file, stored, leased)
            except (LeaseLostError, ServiceUnavailableError):
                raise
            except ChordwiseError as error:
                _refuse(file, error)
                continue
            if place is not None:
                placed.append(place)

    def _with_run(self, file: InboxFile, stored: Path, leased: set[str]) -> _Placed | None:
        """Return a file with its run; `None` if it was completely taken in before a kill.

        `leased` contains the keys of the runs that are known to be open.
        """
        profile, done = self._profile_of(file), 0
        if file.run_id is not None:
            with self._context.database.read() as session:
                done = inbox_files.linked(session, file.id)
        with self._lock:
            run, of = self._place_of(file, stored)
            if run is None and done:
                return None
            run = run or self._run_for(file.profile, profile, leased)
            run.readers += 1
        name = printable(str(file.source))
        stored_file = FoundFile(source=name, path=stored, follow_symlinks=False)
        return _Placed(file=file, stored_file=stored_file, run=run, done=done, of=of)

    def _enlist(self, placed: Sequence[_Placed]) -> None:
        """Put files on the list of their run."""
        if not placed:
            return
        submission = placed[0].run.submission
        values = {"run_id": submission.run_id}
        ids = [place.file.id for place in placed]
        entries = [entry_of(place.stored_file, place.stored_file.source) for place in placed]
        try:
            listed = submission.enlist(
                entries, lambda session: inbox_files.change_all(session, ids, values)
            )
        except RunCancelledError as error:
            for place in placed:
                _refuse(place.file, error)
            return
        for place, of in zip(placed, listed, strict=True):
            place.of = of

    def _read(self, task: ReadingTask, placed: Sequence[_Placed], reader: Reader) -> None:
        source = FileSource(reader, io.BytesIO())
        batches = _Batches()
        with BatchWriter(lambda batch: self._record_outcomes(task, batches.store(batch))) as writer:
            for place in placed:
                if not task.begin(place.file):
                    return
                try:
                    for offered in batches.of(place, source):
                        writer.put(offered)
                        task.has_read()
                except ReadingInterruptedError as error:
                    task.outcomes[place.file.id] = error
                    return

    def _record_outcomes(self, task: ReadingTask, files: Sequence[InboxFile]) -> None:
        for file in files:
            task.outcomes[file.id] = True
            self._begun.discard(file.id)

    def _place_of(self, file: InboxFile, stored: Path) -> tuple[_OpenRun | None, uuid.UUID | None]:
        """Return the run that a file was being taken into, and the intake id of its list entry."""
        if file.run_id is None:
            return None, None
        with self._context.database.read() as session:
            listed = intakes.listed_at(session, file.run_id, os.fsencode(stored.absolute()))
        if listed is None:
            return None, None
        run = self._open_run(file.run_id) or self._resumed(file.run_id)
        return run, None if run is None else listed.intake_id

    def _open_run(self, run_id: uuid.UUID) -> _OpenRun | None:
        runs = (*self._open.values(), *self._retired)
        run = next((run for run in runs if run.submission.run_id == run_id), None)
        return run if run is not None and run.submission.has_lease() else None

    def _resumed(self, run_id: uuid.UUID) -> _OpenRun | None:
        """Resume a run of a lost watcher, whose lock on the store this process holds now."""
        submission = claim(self._context, run_id, by_force=True)
        return None if submission is None else self._opened(str(run_id), submission)

    def _opened(self, key: str, submission: Submission) -> _OpenRun:
        at = self._monotonic()
        self._open[key] = _OpenRun(submission=submission, opened_at=at, last_at=at)
        return self._open[key]

    def _profile_of(self, file: InboxFile) -> Profile:
        profile = profile_named(self._context.settings, file.profile)
        side_car = self._store.side_car_of(file.id, file.relative.name)
        if not os.path.lexists(side_car):  # a name that is too long is not an error here
            return profile
        if side_car.is_symlink():
            raise UsageError("The side-car is a symbolic link.", "Put the file itself there.")
        merged = with_side_car(profile, side_car, self._context.settings.base_folder)
        check(self._context.settings, merged)
        return merged

    def _run_for(self, name: str, profile: Profile, leased: set[str]) -> _OpenRun:
        """Return the open run of a profile, or a new one; add its key to `leased`."""
        key = f"{name}\n{profile.model_dump_json()}"
        run = self._open.get(key)
        if run is not None and key not in leased and not run.submission.has_lease():
            self._retired.append(self._open.pop(key))
            run = None
        if run is None:
            options = run_options(self._context.settings, profile, self._run_name(name), name)
            options = replace(options, follows=True)
            run = self._opened(key, open_run(self._context, options, self._now()))
        leased.add(key)
        return run

    def _run_name(self, profile: str) -> str:
        """Return a name such as `inbox-contracts-20261125-0213`, numbered if it is taken."""
        stem = "-".join(("inbox", *([profile] if profile else []), f"{self._now():%Y%m%d-%H%M}"))
        with self._context.database.read() as session:
            query = select(func.count()).where(Run.name.startswith(stem, autoescape=True))
            count = session.scalar(query) or 0
        return f"{stem}-{count + 1}" if count else stem


class _Batches:
    """The documents of the files of a task, and the rows that link them to their files."""

    def __init__(self) -> None:
        self._places: dict[uuid.UUID, tuple[_Placed, int]] = {}

    def of(self, placed: _Placed, source: FileSource) -> Iterator[Offered]:
        """Yield the documents of a file that are to be taken in, until the file is refused."""
        file, submission = placed.stored_file, placed.run.submission
        documents = source.read(
            file, submission.options.columns, file.source, submission.transcriber
        )
        for position, (document, is_last) in enumerate(marking_last(documents)):
            if placed.file.reason is not None:
                return
            if position >= placed.done:
                offered = Offered(document=document, entry_id=placed.of, is_last=is_last)
                self._places[offered.intake_id] = placed, position
                yield offered

    def store(self, batch: Sequence[Offered]) -> list[InboxFile]:
        """Store a batch, each part in its run; return the files that are complete."""
        through: list[InboxFile] = []
        for _, part in groupby(batch, lambda offer: id(self._placed(offer).run)):
            offered = list(part)
            submission = self._placed(offered[0]).run.submission
            try:
                submission.take_in(offered, partial(self._link_files, submission.run_id))
            except RunCancelledError as error:
                for offer in offered:
                    _refuse(self._placed(offer).file, error)
            else:
                through += self._ended(offered)
            for offer in offered:
                del self._places[offer.intake_id]
        return through

    def _link_files(self, run_id: uuid.UUID, session: Session, offered: Sequence[Offered]) -> None:
        links = []
        for offer in offered:
            placed, position = self._places[offer.intake_id]
            links.append((placed.file.id, offer.intake_id, position))
        inbox_files.link_all(session, run_id, links)
        inbox_files.record_submitted(session, self._ended(offered))

    def _ended(self, offered: Sequence[Offered]) -> list[InboxFile]:
        return [self._placed(offer).file for offer in offered if offer.is_last]

    def _placed(self, offered: Offered) -> _Placed:
        return self._places[offered.intake_id][0]


def _refuse(file: InboxFile, error: ChordwiseError) -> None:
    file.reason, file.message, file.hint = error.code, error.what, error.hint or None
