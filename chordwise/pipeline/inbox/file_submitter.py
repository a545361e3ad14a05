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
    RunCancelledError,
    ServiceUnavailableError,
    UsageError,
)
from chordwise.pipeline.inbox import folders, scan
from chordwise.pipeline.inbox.reading_threads import ReadingTask
from chordwise.pipeline.inbox.scan import check, profile_named, with_side_car
from chordwise.pipeline.intake.document_batches import BatchWriter, Offered
from chordwise.pipeline.intake.found_files import FileSource, Found, marking_last
from chordwise.pipeline.intake.run_options import run_options
from chordwise.pipeline.intake.submit import Submission, claim, open_run
from chordwise.pipeline.runtime.context import Context
from chordwise.readers import failures
from chordwise.readers.discovery import FoundFile
from chordwise.readers.reader import Reader, ReadingInterruptedError, UnreadDocument
from chordwise.remote import RemotePath, lexists
from chordwise.settings import Profile
from chordwise.storage import inbox_files, intakes
from chordwise.storage.inbox_files import Holder, InboxFile
from chordwise.storage.intakes import IntakeEntry
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
    """A file with its run; `done` is the number of its documents already taken in.

    `entry_id` is the intake id of its entry on the list of the run, `None` if it is not listed.
    """

    file: InboxFile
    run: _OpenRun
    done: int
    entry_id: uuid.UUID | None

    @property
    def name(self) -> str:
        return printable(str(self.file.source))

    @property
    def raw_path(self) -> bytes:
        return os.fsencode(self.file.source)

    def entry(self) -> IntakeEntry:
        """Return the entry for the list of the run."""
        return IntakeEntry(
            source=self.name,
            raw_path=self.raw_path,
            byte_count=self.file.byte_count,
            modified_ns=self.file.modified_ns,
        )


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

    def claim_waiting(self, of: ColumnElement[bool], limit: int) -> list[InboxFile]:
        """Claim files to read that this process or a lost one has claimed before."""
        with self._lock:
            run_ids = [run.submission.run_id for run in (*self._open.values(), *self._retired)]
        with self._context.database.write() as session:
            return inbox_files.claim_unread(session, self._holder, of, run_ids, limit)

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
                new = [place for place in placed if place.run is run and place.entry_id is None]
                self._enlist(run.submission, new)
            self._read(task, [place for place in placed if place.entry_id is not None], reader)
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
                _quarantine(file)
                continue
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
        profile, done = self._profile_of(file), 0
        if file.run_id is not None:
            with self._context.database.read() as session:
                done = inbox_files.linked(session, file.id)
        with self._lock:
            run, entry_id = self._place_of(file)
            if run is None and done:
                return None
            run = run or self._run_for(file.profile, profile, leased)
            run.readers += 1
        return _Placed(file=file, run=run, done=done, entry_id=entry_id)

    def _enlist(self, submission: Submission, placed: Sequence[_Placed]) -> None:
        if not placed:
            return
        ids = [place.file.id for place in placed]
        put = partial(inbox_files.put_into_run, holder=self._holder, run_id=submission.run_id)
        try:
            entry_ids = submission.enlist(
                [place.entry() for place in placed], lambda session: put(session, ids=ids)
            )
        except RunCancelledError as error:
            for place in placed:
                _refuse(place.file, error)
            return
        for place, entry_id in zip(placed, entry_ids, strict=True):
            place.entry_id = entry_id

    def _read(self, task: ReadingTask, placed: Sequence[_Placed], reader: Reader) -> None:
        source = FileSource(reader, io.BytesIO())
        batches = _Batches(self._holder)

        def store(batch: Sequence[Offered]) -> None:
            task.outcomes.update({file.id: True for file in batches.store(batch)})

        with BatchWriter(store) as writer:
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

    def _place_of(self, file: InboxFile) -> tuple[_OpenRun | None, uuid.UUID | None]:
        """Return the run that a file was being taken into, and the intake id of its list entry."""
        if file.run_id is None:
            return None, None
        version = file.byte_count, file.modified_ns
        with self._context.database.read() as session:
            raw_path = os.fsencode(file.source)
            entry_id = intakes.listed_at(session, file.run_id, raw_path, *version)
        if entry_id is None:
            return None, None
        runs = (*self._open.values(), *self._retired)
        run = next((run for run in runs if run.submission.run_id == file.run_id), None)
        if run is None or not run.submission.has_lease():
            run = self._resumed(file.run_id)
        return run, None if run is None else entry_id

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


class _Batches:
    """The documents of the files of a task, and the rows that link them to their files."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._places: dict[uuid.UUID, tuple[_Placed, int]] = {}

    def of(self, placed: _Placed, source: FileSource) -> Iterator[Offered]:
        """Yield the documents of a file that are to be taken in, until the file is refused."""
        for position, (document, is_last) in enumerate(marking_last(_documents(placed, source))):
            if placed.file.reason is not None:
                return
            if is_last and not position:
                placed.file.sha256 = placed.file.sha256 or document.sha256
            if position >= placed.done:
                offered = Offered(
                    document=document,
                    entry_id=placed.entry_id,
                    is_last=is_last,
                    raw_path=placed.raw_path,
                )
                self._places[offered.intake_id] = placed, position
                yield offered

    def store(self, batch: Sequence[Offered]) -> list[InboxFile]:
        """Store a batch, each part in its run; return the files that are complete."""
        complete: list[InboxFile] = []
        for _, part in groupby(batch, lambda offer: id(self._placed(offer).run)):
            offered = list(part)
            submission = self._placed(offered[0]).run.submission
            try:
                submission.take_in(offered, partial(self._link_files, submission.run_id))
            except RunCancelledError as error:
                for offer in offered:
                    _refuse(self._placed(offer).file, error)
            else:
                complete += self._ended(offered)
            for offer in offered:
                del self._places[offer.intake_id]
        return complete

    def _link_files(self, run_id: uuid.UUID, session: Session, offered: Sequence[Offered]) -> None:
        links = []
        for offer in offered:
            placed, position = self._places[offer.intake_id]
            links.append((placed.file.id, offer.intake_id, position))
        inbox_files.link_all(session, links)
        ended = self._ended(offered)
        inbox_files.record_submitted(session, self._holder, ended)
        unended_ids = {file_id for file_id, _, _ in links} - {file.id for file in ended}
        inbox_files.put_into_run(session, self._holder, run_id, unended_ids)

    def _ended(self, offered: Sequence[Offered]) -> list[InboxFile]:
        return [self._placed(offer).file for offer in offered if offer.is_last]

    def _placed(self, offered: Offered) -> _Placed:
        return self._places[offered.intake_id][0]


def _documents(placed: _Placed, source: FileSource) -> Iterator[Found]:
    """Return all documents of a file, or for another version of it the reason in their place."""
    if not _is_as_claimed(placed.file):
        error = failures.named(placed.name, failures.changed())
        unread = UnreadDocument(source=placed.name, error=error)
        return itertools.repeat(unread, placed.done + 1)
    file = FoundFile(source=placed.name, path=placed.file.source, follow_symlinks=False)
    submission = placed.run.submission
    return source.read(file, submission.options.columns, placed.name, submission.transcriber)


def _is_as_claimed(file: InboxFile) -> bool:
    """Return whether the version of a file that was claimed is in its place, or nothing is."""
    return not lexists(file.source) or scan.is_same_version(file, file.source)


def _numbered(name: str) -> Iterator[str]:
    return itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))


def _quarantine(file: InboxFile) -> None:
    file.reason = "quarantined"
    file.message = (
        f"The process that reads files has crashed {MAX_ATTEMPTS} times while it read {file.name}."
    )
    file.hint = (
        "It probably needs more memory than is available. Split it, or give the scheduler more "
        "memory, and put it into the inbox again."
    )
    log.error("inbox.quarantined", file=file.name, folder=file.folder)


def _refuse(file: InboxFile, error: ChordwiseError) -> None:
    file.reason, file.message, file.hint = error.code, error.what, error.hint or None
