"""The watch over inboxes: claims files, submits them, and delivers them when they are answered."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path, PurePath
from queue import SimpleQueue

import structlog
from sqlalchemy import ColumnElement

from chordwise.domain.failure_backoff import FailureBackoff
from chordwise.domain.inbox import SIDE_CAR, Found, Sighting, Sightings
from chordwise.domain.visible_text import printable
from chordwise.errors import ChordwiseError, ServiceUnavailableError
from chordwise.pipeline.inbox import scan
from chordwise.pipeline.inbox.file_deliverer import FileDeliverer
from chordwise.pipeline.inbox.file_submitter import FileSubmitter
from chordwise.pipeline.inbox.folders import inboxes_of
from chordwise.pipeline.inbox.reading_threads import ReadingThreads
from chordwise.pipeline.inbox.scan import Refused, check, profile_named
from chordwise.pipeline.intake.found_files import MAX_ATTEMPTS
from chordwise.pipeline.runtime.context import Context
from chordwise.remote import RemoteError, RemotePath, path_of
from chordwise.storage import inbox_files
from chordwise.storage.inbox_files import Holder, InboxFile
from chordwise.storage.record import new_id

log = structlog.get_logger(__name__)

MAX_WAITING = 2_000
"""The number of waiting files that are held in memory; the others stay in their folders."""
_BATCH = 50
_COMPARED = 1_000
_MAX_DELIVERED = 500
_DELIVERED_TOGETHER = 20
_PENDING_SECONDS = 1.0
_DELIVER_SECONDS = 0.3
_TURN_SECONDS = 0.5
# Beside the time for reading: what storing a file, and a model that reads a page, may take.
_STORING_SECONDS, _PAGE_SECONDS = 300.0, 60.0
_SHARE = 10
"""The minimum pause before the next scan or query, as a multiple of the time of the last one."""


class InboxWatch:
    """The periodic work of a process that watches inboxes, possibly beside others.

    Processes share files by claims in the database: a claim is a lease, which the heartbeat of the
    process extends. `monotonic` is in seconds. Call `tick` several times a second; it waits at most
    `reading_turn_seconds` for a task of files that is being read, and then continues with the other
    work. If `intake.read` is `workers`, a watch that `lists` claims and delivers files for those of
    other processes, which read them.
    """

    def __init__(
        self,
        context: Context,
        *,
        monotonic: Callable[[], float],
        now: Callable[[], datetime],
        reading_turn_seconds: float = _TURN_SECONDS,
        lists: bool = True,
    ) -> None:
        self._context = context
        self._settings = context.settings.inbox
        self._inboxes = inboxes_of(context.settings)
        is_remote = any(isinstance(folder, RemotePath) for folder in self.folders)
        self._is_polling = self._settings.polling or is_remote
        self._monotonic = monotonic
        self._holder = Holder(token=uuid.uuid4(), duration=context.lease)
        self._submitter = FileSubmitter(context, self._holder, monotonic=monotonic, now=now)
        self._threads = ReadingThreads(self._submitter.submit, context.settings.readers, monotonic)
        self._reading_turn_seconds = reading_turn_seconds
        self._lists = lists
        self._reads = not lists or context.settings.intake.read == "here"
        self._deliverer = FileDeliverer(context, self._holder)
        self._waiting = Sightings(self._settings.stability_seconds, MAX_WAITING)
        self._failures = FailureBackoff()
        self._events: SimpleQueue[Path] = SimpleQueue()
        self._refused: set[Refused] = set()
        self._scan_at = self._pending_at = self._deliver_at = 0.0
        self._earliest_scan_at = 0.0
        self._left_out = 0
        self._answered: list[InboxFile] = []
        self._ticked_at = float("inf")
        readers = context.settings.readers
        pages = readers.max_vision_pages if readers.vision else 0
        self._file_seconds = readers.file_timeout_seconds + _STORING_SECONDS + _PAGE_SECONDS * pages
        context.leases.keep_token(InboxFile, self._holder.token)
        if lists:
            self.make_folders()

    @property
    def folders(self) -> tuple[Path, ...]:
        """The absolute paths of the inboxes."""
        return tuple(inbox.folder for inbox in self._inboxes.inboxes)

    def make_folders(self) -> None:
        """Create missing inboxes, and in them a folder for each profile.

        Errors are ignored here; the scan reports folders that are missing or cannot be read.
        """
        of_profiles = [
            path_of(folder)
            for folder in self._inboxes.bindings
            if any(folder.is_relative_to(inbox) for inbox in self.folders)
        ]
        for folder in (*self.folders, *of_profiles):
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)

    def record_changes(self, paths: Iterable[Path]) -> None:
        """Record that these paths have changed; safe to call from other threads."""
        for path in paths:
            self._events.put(path)

    def tick(self) -> bool:
        """Do some of the work that is due; return whether more files are waiting.

        Raises:
            ServiceUnavailableError: The database cannot be reached; the next call continues.
        """
        self._ticked_at = self._monotonic()
        self._collect()
        is_behind = False
        if self._lists:
            now = self._monotonic()
            while not self._events.empty():
                path = self._events.get()
                # A change of a side-car counts as a change of its file.
                self._waiting.restart_quiet_period(
                    path.with_name(path.name.removesuffix(SIDE_CAR)), now
                )
                self._scan_at = min(self._scan_at, now)
            self._scan_if_due()
            is_behind = self._take_complete()
        if self._reads:
            self._submit_pending()
        if self._lists:
            self._deliver_due()
        self._submitter.close_quiet()
        return is_behind

    def is_overdue(self) -> bool:
        """Return whether a file has been read, or moved, for longer than a file may take.

        Other threads may call this.
        """
        last = (task.last_at for task in self._threads.tasks if not task.ended.is_set())
        return self._monotonic() - min([self._ticked_at, *last]) > self._file_seconds

    def close(self) -> None:
        """Interrupt the reading of files, close the open runs, and release the files.

        Raises:
            ServiceUnavailableError: The database cannot be reached; the leases expire.
        """
        self.stop_reading()
        self._submitter.close_quiet(everything=True)
        with self._context.database.write() as session:
            inbox_files.release(session, self._holder)

    def stop_reading(self) -> None:
        """Interrupt the reading of files immediately, end the readers, and let leases expire."""
        self._threads.close()
        self._context.leases.drop_token(self._holder.token)

    def _scan_if_due(self) -> None:
        now = self._monotonic()
        wants_more = self._left_out > 0 and self._waiting.has_room
        if now < self._earliest_scan_at or not (now >= self._scan_at or wants_more):
            return
        settings = self._settings
        pause = settings.polling_seconds if self._is_polling else settings.rescan_seconds
        self._scan_at = now + pause
        refused: set[Refused] = set()

        def refuse(entry: Refused) -> None:
            if len(refused) < MAX_WAITING:
                refused.add(entry)

        unclaimed = (
            file
            for folder in self.folders
            for file in self._unclaimed(folder, scan.files(folder, refuse))
        )
        files = scan.oldest(unclaimed, MAX_WAITING + 1)
        self._left_out = self._waiting.replace(files, now)
        for entry in sorted(refused - self._refused, key=lambda entry: bytes(entry.path)):
            log.warning("inbox.refused", file=printable(str(entry.path)), reason=entry.reason)
        self._refused = refused
        self._failures.keep_only({file[0] for file in files}, of=PurePath)
        # A folder whose scan takes long is scanned less often.
        self._earliest_scan_at = now + _SHARE * (self._monotonic() - now)

    def _unclaimed(self, folder: Path, files: Iterator[Found]) -> Iterator[Found]:
        """Yield the files of which no process has claimed this version."""
        while batch := list(itertools.islice(files, _COMPARED)):
            versions = [scan.version(folder, file) for file in batch]
            with self._context.database.read() as session:
                claimed = inbox_files.open_versions(session, str(folder), versions)
            for file, version in zip(batch, versions, strict=True):
                if version not in claimed:
                    yield file

    def _take_complete(self) -> bool:
        """Claim files for one turn; return whether some are left."""
        now = self._monotonic()
        complete = (
            sighting
            for sighting in self._waiting.complete_files(now)
            if not self._failures.is_waiting(sighting.path, now)
        )
        while self._monotonic() <= now + _TURN_SECONDS and self._threads.is_free:
            batch = list(itertools.islice(complete, _BATCH))
            if not batch:
                return False
            files: list[InboxFile] = []
            for sighting in batch:
                with self._logging_errors(sighting.path, "claim", sighting.path):
                    self._add_if_complete(sighting, files)
            self._claim(files)
        return self._threads.is_free

    def _add_if_complete(self, sighting: Sighting, files: list[InboxFile]) -> None:
        """Add a file to those that are to be claimed, unless it is still being written."""
        path, now = path_of(sighting.path), self._monotonic()
        inbox = self._inboxes.holding(path)
        if inbox is None:
            return
        if scan.fingerprints(path) != sighting.prints or scan.is_being_written(path):
            self._waiting.restart_quiet_period(path, now)
            self._scan_at = min(self._scan_at, now)
            return
        profile = self._inboxes.profile_of(path)
        settings = self._context.settings
        check(settings, profile_named(settings, profile))
        raw_name, byte_count, modified_ns = scan.version(inbox.folder, (path, sighting.prints))
        row = InboxFile(
            id=new_id(),
            folder=str(inbox.folder),
            name=printable(str(path.relative_to(inbox.folder))),
            raw_name=raw_name,
            byte_count=byte_count,
            modified_ns=modified_ns,
            profile=profile,
        )
        files.append(row)

    def _claim(self, files: Sequence[InboxFile]) -> None:
        """Claim files that no other process has claimed, and read them."""
        if not files:
            return
        with self._context.database.write() as session:
            claimed = inbox_files.claim(session, self._holder, files)
        # Another process may have delivered a file between the check and the claim.
        kept = [file for file in claimed if _is_in_place(file)]
        gone_ids = {file.id for file in claimed} - {file.id for file in kept}
        if gone_ids:
            with self._context.database.write() as session:
                inbox_files.forget(session, self._holder, gone_ids)
        for file in files:
            self._waiting.forget(file.source)
        if self._reads:
            self._read(kept)
        else:
            with self._context.database.write() as session:
                inbox_files.release(session, self._holder, [file.id for file in kept])

    def _submit_pending(self) -> None:
        now = self._monotonic()
        if now < self._pending_at:
            return
        of, is_idle = self._claimable(self._threads.held), not self._threads.tasks
        waiting = self._submitter.claim_waiting(of, _BATCH, is_idle=is_idle)
        self._read(waiting)
        is_behind = len(waiting) == _BATCH or any(f.attempts >= MAX_ATTEMPTS for f in waiting)
        self._pending_at = self._monotonic() + (0 if is_behind else _PENDING_SECONDS)

    def _claimable(self, held_ids: set[uuid.UUID]) -> ColumnElement[bool]:
        """Return the condition for files that this process may claim now.

        Files of a missing folder, such as a share that is not mounted, wait or are left to others;
        folders on servers are not checked, because that takes time.
        """
        folders = [
            str(folder)
            for folder in self.folders
            if isinstance(folder, RemotePath) or folder.is_dir()
        ]
        failed_ids = self._failures.waiting(uuid.UUID, self._monotonic())
        return inbox_files.within(folders, held_ids | failed_ids)

    def _read(self, files: Iterable[InboxFile]) -> None:
        """Begin to read files for which a thread is free, and wait briefly for each task to end."""
        quick_files: list[InboxFile] = []
        for file in files:
            alone = file.attempts == MAX_ATTEMPTS
            if alone or self._threads.is_slow(file):
                self._begin([file], alone=alone)
            else:
                quick_files.append(file)
        if quick_files:
            self._begin(quick_files, alone=False)

    def _begin(self, files: Sequence[InboxFile], *, alone: bool) -> None:
        task = self._threads.begin(files, alone=alone)
        if task is not None:
            task.ended.wait(self._reading_turn_seconds)
            self._collect()

    def _collect(self) -> None:
        for file, outcome in self._threads.ended():
            with self._logging_errors(file.id, "submit", file.source):
                if isinstance(outcome, BaseException):
                    raise outcome
                if outcome:
                    of = {"folder": file.folder, "profile": file.profile}
                    log.info("inbox.submitted", file=file.name, **of)

    def _deliver_due(self) -> None:
        now = self._monotonic()
        if now < self._deliver_at and not self._answered:
            return
        if not self._answered:
            of = self._claimable(set())
            with self._context.database.write() as session:
                answered = inbox_files.claim_answered(session, self._holder, of, _MAX_DELIVERED)
            self._answered = answered
            # With thousands of open files the query takes longer, and is run less often.
            pause = max(_DELIVER_SECONDS, _SHARE * (self._monotonic() - now))
            self._deliver_at = self._monotonic() + pause
        until = self._monotonic() + _TURN_SECONDS
        while self._answered and self._monotonic() <= until:
            files = self._answered[:_DELIVERED_TOGETHER]
            del self._answered[:_DELIVERED_TOGETHER]
            for file, moved in zip(files, self._deliverer.deliver(files), strict=True):
                with self._logging_errors(file.id, "deliver", file.source):
                    if isinstance(moved, Exception):
                        raise moved
                    log.info("inbox.delivered", file=file.name, to=printable(str(moved)))

    @contextlib.contextmanager
    def _logging_errors(self, key: Hashable, what: str, path: PurePath) -> Iterator[None]:
        """Log an error of one file in the block once; the file is retried later."""
        file = printable(str(path))
        try:
            yield
        except ServiceUnavailableError:
            raise
        except (OSError, ChordwiseError) as error:
            reason = error.what if isinstance(error, ChordwiseError) else str(error.strerror)
            if self._failures.record(key, reason, self._monotonic()):
                log.warning("inbox.postponed", what=what, file=file, reason=reason)
        except Exception:  # a defect with one file must not block the others
            if self._failures.record(key, "defect", self._monotonic()):
                log.exception("inbox.defect", what=what, file=file)
        else:
            self._failures.clear(key)
            return
        if isinstance(key, uuid.UUID):  # another process may succeed
            with self._context.database.write() as session:
                inbox_files.release(session, self._holder, [key])


def _is_in_place(file: InboxFile) -> bool:
    """Return whether the claimed version is in its place, or may be: its server does not answer."""
    try:
        return scan.is_same_version(file, file.source)
    except RemoteError:
        return True
