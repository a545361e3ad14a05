"""Submits claimed files; files that arrive together with the same options share a run."""

from __future__ import annotations

import io
import itertools
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import groupby
from threading import Lock

import structlog
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from chordwise.domain.inbox import side_car_name
from chordwise.domain.visible_text import printable
from chordwise.errors import (
    ChordwiseError,
    LeaseLostError,
    ReadError,
    RunCancelledError,
    ServiceUnavailableError,
    UsageError,
)
from chordwise.pipeline.inbox import folders, scan
from chordwise.pipeline.inbox.reading_threads import ReadingTask
from chordwise.pipeline.inbox.scan import check, profile_named, with_side_car
from chordwise.pipeline.intake.document_batches import Offered
from chordwise.pipeline.intake.found_files import MAX_ATTEMPTS, FileSource, Hooks, read_entries
from chordwise.pipeline.intake.run_options import run_options
from chordwise.pipeline.intake.submit import Submission, claim, open_run
from chordwise.pipeline.runtime.context import Context
from chordwise.readers import failures
from chordwise.readers.reader import Reader, ReadingInterruptedError
from chordwise.remote import RemotePath, lexists
from chordwise.settings import Profile
from chordwise.storage import inbox_files, intakes
from chordwise.storage.inbox_files import Holder, InboxFile
from chordwise.storage.intakes import IntakeEntry, ListedFile
from chordwise.storage.runs import Run

log = structlog.get_logger(__name__)

_MAX_SECONDS = 3_600.0
"""The maximum time that a run stays open while files keep arriving."""


@dataclass(slots=True, kw_only=True)
class _OpenRun:
    submission: Submission
    opened_at: float
    last_at: float
    readers: int = 0


@dataclass(slots=True, kw_only=True)
class _Placed:
    """A file with its run, and its entry on the list of the run, `None` until it is listed."""

    file: InboxFile
    run: _OpenRun
    listed: ListedFile | None


class FileSubmitter:
    """Opens runs, takes files into them, and closes them when no more files arrive.

    Several threads may call `submit`, each with its own reader; all other methods are for one
    thread. `monotonic` is in seconds; `now` is used in the names of the runs.
    """

    def __init__(
        self,
        context: Context,
        holder: Holder,
        *,
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._context = context
        self._holder = holder
        self._monotonic = monotonic
        self._now = now
        self._open: dict[str, _OpenRun] = {}
        self._retired: list[_OpenRun] = []
        self._lock = Lock()

    def claim_waiting(
        self, of: ColumnElement[bool], limit: int, *, is_idle: bool
    ) -> list[InboxFile]:
        """Claim files to read that this process or a lost one has claimed before.

        A file that is to be read for the last time is claimed by itself, if no other is being read.
        """
        with self._lock:
            run_ids = [run.submission.run_id for run in (*self._open.values(), *self._retired)]
        with self._context.database.write() as session:
            claim = partial(inbox_files.claim_unread, session, self._holder, run_ids=run_ids)
            is_last = inbox_files.next_attempt(self._holder) >= MAX_ATTEMPTS
            last = claim(of=of & is_last, limit=1) if is_idle else []
            return last or claim(of=of & ~is_last, limit=limit)

    def submit(self, task: ReadingTask, reader: Reader) -> None:
        """Take in the documents of the files of a task, and record the outcome of each file in it.

        Files are stored together in few transactions. Errors of a file or its side-car are recorded
        with the file and not raised. A file that is being written or has changed since its claim is
        not submitted; a file whose reading was interrupted has the outcome
        `ReadingInterruptedError`, and a later call continues with it.

        Raises:
            LeaseLostError: Another process holds a file or its run; a later call continues.
            ServiceUnavailableError: The database cannot be reached; a later call continues.
        """
        files = self._unchanged(task)
        placed: list[_Placed] = []
        try:
            self._place(files, placed)
            for run in {id(place.run): place.run for place in placed}.values():
                new = [place for place in placed if place.run is run and place.listed is None]
                self._enlist(run.submission, new)
            by_run = groupby(sorted(placed, key=_run_id), _run_id)
            for _, places in by_run:
                self._read(task, list(places), reader)
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
                inbox_files.record_submitted(session, self._holder, ended)
            task.outcomes.update({file.id: True for file in ended})

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

    def _unchanged(self, task: ReadingTask) -> list[InboxFile]:
        """Return the files that can be read now; a changed one of which nothing was read is freed.

        A missing file can be read: the reader says that it is missing.
        """
        files, changed_ids = [], []
        for file in task.files:
            if scan.is_being_written(file.source):
                task.outcomes[file.id] = False
            elif file.run_id is None and not _is_as_claimed(file):
                task.outcomes[file.id] = False
                changed_ids.append(file.id)
            else:
                files.append(file)
        if changed_ids:
            with self._context.database.write() as session:
                inbox_files.forget(session, self._holder, changed_ids)
        return files

    def _place(self, files: Sequence[InboxFile], placed: list[_Placed]) -> None:
        """Add the files that are to be taken in to `placed`, each with its run.

        The other files have a reason for refusal, or were completely taken in before a kill.
        """
        leased: set[str] = set()
        for file in files:
            # The version of a remote file is certain, because its server sets its time.
            is_remote = isinstance(file.source, RemotePath)
            file.sha256 = None if is_remote else folders.sha256_of(file.source)
            if file.attempts > MAX_ATTEMPTS:
                log.error("inbox.quarantined", file=file.name, folder=file.folder)
            try:
                place = self._with_run(file, leased)
            except (LeaseLostError, ServiceUnavailableError):
                raise
            except ChordwiseError as error:
                _refuse(file, error)
                continue
            if place is not None:
                placed.append(place)

    def _with_run(self, file: InboxFile, leased: set[str]) -> _Placed | None:
        """Return a file with its run; `None` if it was completely taken in before a kill.

        `leased` contains the keys of the runs that are known to be open.
        """
        profile, is_begun = self._profile_of(file), False
        if file.run_id is not None:
            with self._context.database.read() as session:
                is_begun = inbox_files.has_intakes(session, file.id)
        with self._lock:
            run, listed = self._place_of(file)
            if run is None and is_begun:
                return None
            run = run or self._run_for(file.profile, profile, leased)
            run.readers += 1
        return _Placed(file=file, run=run, listed=listed)

    def _enlist(self, submission: Submission, placed: Sequence[_Placed]) -> None:
        if not placed:
            return
        ids = [place.file.id for place in placed]
        put = partial(inbox_files.put_into_run, holder=self._holder, run_id=submission.run_id)
        entries = [
            IntakeEntry(
                source=printable(str(place.file.source)),
                raw_path=os.fsencode(place.file.source),
                byte_count=place.file.byte_count,
                modified_ns=place.file.modified_ns,
            )
            for place in placed
        ]
        try:
            entry_ids = submission.enlist(entries, lambda session: put(session, ids=ids))
        except RunCancelledError as error:
            for place in placed:
                _refuse(place.file, error)
            return
        for place, entry, entry_id in zip(placed, entries, entry_ids, strict=True):
            place.listed = entry.listed(entry_id)

    def _read(self, task: ReadingTask, placed: Sequence[_Placed], reader: Reader) -> None:
        """Take in the listed files of one run, as far as the task may begin them."""
        submission = placed[0].run.submission
        reading = _Reading(self._holder, task, submission.run_id, placed)
        hooks = Hooks(
            is_stopped=reading.is_stopped,
            on_taken=reading.record,
            also=reading.link,
            refusal=reading.refusal,
        )
        try:
            read_entries(submission, FileSource(reader, io.BytesIO()), reading.entries(), hooks)
        except ReadingInterruptedError as error:
            reading.interrupt(error)
        except RunCancelledError as error:
            reading.refuse_rest(error)

    def _place_of(self, file: InboxFile) -> tuple[_OpenRun | None, ListedFile | None]:
        """Return the run that a file was being taken into, and its entry on the list."""
        if file.run_id is None:
            return None, None
        version = file.byte_count, file.modified_ns
        with self._context.database.read() as session:
            listed = intakes.listed_at(session, file.run_id, os.fsencode(file.source), *version)
        if listed is None:
            return None, None
        runs = (*self._open.values(), *self._retired)
        run = next((run for run in runs if run.submission.run_id == file.run_id), None)
        if run is None or not run.submission.has_lease():
            run = self._resumed(file.run_id)
        return run, None if run is None else listed

    def _resumed(self, run_id: uuid.UUID) -> _OpenRun | None:
        """Resume the run of a lost process; `None` if it is cancelled."""
        submission = claim(self._context, run_id)
        if submission is not None:
            return self._opened(str(run_id), submission)
        with self._context.database.read() as session:
            if intakes.held_until(session, run_id) is not None:
                raise LeaseLostError("Another process takes files into this run.")
        return None

    def _opened(self, key: str, submission: Submission) -> _OpenRun:
        at = self._monotonic()
        self._open[key] = _OpenRun(submission=submission, opened_at=at, last_at=at)
        return self._open[key]

    def _profile_of(self, file: InboxFile) -> Profile:
        profile = profile_named(self._context.settings, file.profile)
        side_car = file.source.with_name(side_car_name(file.relative.name))
        if not lexists(side_car):  # a name that is too long is not an error here
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
            run = self._opened(key, self._new_run(name, profile))
        leased.add(key)
        return run

    def _new_run(self, profile_name: str, profile: Profile) -> Submission:
        """Open a run with a name such as `inbox-contracts-20261125-0213`, numbered if it is taken.

        Another process may take the name at the same time.
        """
        parts = ("inbox", *([profile_name] if profile_name else []), f"{self._now():%Y%m%d-%H%M}")
        options = run_options(self._context.settings, profile, "", profile_name)
        names: set[str] = set()
        while True:
            name = next(name for name in _numbered("-".join(parts)) if name not in names)
            try:
                options = replace(options, name=name, follows=True)
                return open_run(self._context, options, self._now())
            except UsageError:
                like = Run.name.startswith("-".join(parts), autoescape=True)
                with self._context.database.read() as session:
                    names = set(session.scalars(select(Run.name).where(like)))
                if name not in names:
                    raise


class _Reading:
    """The files of a task that are taken into one run, by the ids of their entries."""

    def __init__(
        self, holder: Holder, task: ReadingTask, run_id: uuid.UUID, placed: Sequence[_Placed]
    ) -> None:
        self._holder = holder
        self._task = task
        self._run_id = run_id
        self._entries = [place.listed for place in placed if place.listed is not None]
        self._files: dict[uuid.UUID | None, InboxFile] = {
            place.listed.id: place.file for place in placed if place.listed is not None
        }
        self._current: InboxFile | None = None

    def entries(self) -> Iterator[tuple[ListedFile, None]]:
        """Yield the entries of the files that the task begins."""
        for entry in self._entries:
            self._current = self._files[entry.id]
            if not self._task.begin(self._current):
                return
            entry.attempts = self._current.attempts
            yield entry, None

    def is_stopped(self) -> bool:
        """Record that a document was read; a file is read to its end."""
        self._task.has_read()
        return False

    def refusal(self, listed: ListedFile) -> ReadError | None:
        """Return why a file is not read."""
        return None if _is_as_claimed(self._files[listed.id]) else failures.changed()

    def link(self, session: Session, batch: Sequence[Offered]) -> None:
        """Link documents to their files, and record which files are complete."""
        of_files = [(offered, self._files[offered.entry_id]) for offered in batch]
        links = [(file.id, offered.intake_id, offered.position) for offered, file in of_files]
        inbox_files.link_all(session, links)
        for offered, file in of_files:
            if offered.is_last and not offered.position:
                file.sha256 = file.sha256 or offered.document.sha256
        ended = [file for offered, file in of_files if offered.is_last]
        inbox_files.record_submitted(session, self._holder, ended)
        unended_ids = {file.id for _, file in of_files} - {file.id for file in ended}
        inbox_files.put_into_run(session, self._holder, self._run_id, unended_ids)

    def record(self, offered: Offered) -> None:
        """Record the outcome of a file whose last document is stored."""
        if offered.is_last:
            self._task.outcomes[self._files[offered.entry_id].id] = True

    def interrupt(self, error: ReadingInterruptedError) -> None:
        """Record that the current file was interrupted; the files behind it are not begun."""
        if self._current is not None:
            self._task.outcomes[self._current.id] = error

    def refuse_rest(self, error: RunCancelledError) -> None:
        """Give the files of the task that are not complete the reason of a cancelled run.

        After a stop of the task, another one reads those that it has not begun.
        """
        for file in self._files.values():
            if file.id not in self._task.outcomes and self._task.begin(file):
                _refuse(file, error)


def _run_id(placed: _Placed) -> uuid.UUID:
    return placed.run.submission.run_id


def _is_as_claimed(file: InboxFile) -> bool:
    """Return whether the version of a file that was claimed is in its place, or nothing is."""
    return not lexists(file.source) or scan.is_same_version(file, file.source)


def _numbered(name: str) -> Iterator[str]:
    return itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))


def _refuse(file: InboxFile, error: ChordwiseError) -> None:
    file.reason, file.message, file.hint = error.code, error.what, error.hint or None
