"""Renews the leases of this process, and releases them when it stops."""

from __future__ import annotations

import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Unpack

import structlog
from sqlalchemy.orm import Session

from chordwise.errors import LeaseLostError, ServiceUnavailableError
from chordwise.pipeline.runtime.messages import ANALYZE_SLICE, FAN_OUT, SYNTHESIZE
from chordwise.storage import claims, incidents, jobs, leases, outbox
from chordwise.storage.chunks import Chunk
from chordwise.storage.claims import Work
from chordwise.storage.database import Database
from chordwise.storage.inbox_files import InboxFile
from chordwise.storage.incidents import IncidentKind
from chordwise.storage.intakes import ListedFile
from chordwise.storage.jobs import Job
from chordwise.storage.leases import Leased
from chordwise.storage.outbox import When
from chordwise.storage.runs import Run
from chordwise.storage.schedules import ScheduleRun

log = structlog.get_logger(__name__)

_LEAVING_TIMEOUT = timedelta(seconds=5)
_OUTAGE_PAUSE_SECONDS = 1.0
_LOCK_ORDER = (Job, Chunk, Run, InboxFile, ListedFile, ScheduleRun)


@dataclass(slots=True, kw_only=True)
class Lease:
    """The right of one thread to work on a chunk, or on a job's synthesis (`chunk_id` is None)."""

    job_id: uuid.UUID
    chunk_id: uuid.UUID | None = None
    token: uuid.UUID = field(default_factory=uuid.uuid4)
    lost: bool = False

    @property
    def names(self) -> dict[str, str]:
        """The ids for the log."""
        return {"job_id": str(self.job_id), "chunk_id": str(self.chunk_id)}

    @property
    def work(self) -> tuple[Work, uuid.UUID, uuid.UUID]:
        """The table and id of the work, and the token."""
        if self.chunk_id is None:
            return Job, self.job_id, self.token
        return Chunk, self.chunk_id, self.token

    def promise(self, session: Session, reason: str, **when: Unpack[When]) -> None:
        """Promise a message for the work, which has left the lease."""
        table, id_, _ = self.work
        task = ANALYZE_SLICE if table is Chunk else SYNTHESIZE
        outbox.promise(session, task, [id_], reason=reason, **when)

    def require(self) -> None:
        """Check that the lease is still held.

        Raises:
            LeaseLostError: Another worker has claimed the work.
        """
        if self.lost:
            raise LeaseLostError(f"The lease of job {self.job_id} is lost.")


class LeaseKeeper:
    """A thread that renews all leases of this process.

    Work that stopped because the database was unavailable is released as soon as it answers again.
    """

    def __init__(self, database: Database, duration: timedelta, heartbeat: timedelta) -> None:
        self._database = database
        self._duration = duration
        self._heartbeat = heartbeat
        self._held: dict[uuid.UUID, Lease] = {}
        self._abandoned: dict[uuid.UUID, Lease] = {}
        self._fanning_out: set[uuid.UUID] = set()
        self._tokens: dict[uuid.UUID, tuple[type[Leased], Callable[[], None] | None]] = {}
        self._losses: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Stop renewing; leases that are still held expire."""
        self._stopped.set()

    def close(self) -> None:
        """Stop renewing, and close the connection of the heartbeat."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
        self._database.close()

    def keep(self, lease: Lease) -> None:
        """Renew a claimed lease until `holding` releases it."""
        with self._lock:
            self._held[lease.token] = lease
            self._start()

    @contextmanager
    def holding(self, lease: Lease) -> Iterator[Lease]:
        """Renew a claimed lease inside the block, and release it if the database fails.

        Raises:
            ServiceUnavailableError: Raised by the block.
        """
        self.keep(lease)
        try:
            yield lease
        except ServiceUnavailableError:
            self._abandoned[lease.token] = lease
            raise
        finally:
            with self._lock:
                self._held.pop(lease.token, None)

    @contextmanager
    def fanning_out(self, job_id: uuid.UUID) -> Iterator[None]:
        """Record progress of a job inside the block; if this process stops, others continue it."""
        with self._lock:
            self._fanning_out.add(job_id)
            self._start()
        try:
            yield
        finally:
            self._fanning_out.discard(job_id)

    def keep_token(
        self, table: type[Leased], token: uuid.UUID, on_loss: Callable[[], None] | None = None
    ) -> None:
        """Renew all leases of a table with this token until it is dropped.

        `on_loss` is called after each beat that finds no row with the token.
        """
        with self._lock:
            self._tokens[token] = table, on_loss
            self._start()

    def drop_token(self, token: uuid.UUID) -> None:
        """Stop renewing the leases with this token."""
        with self._lock:
            self._tokens.pop(token, None)

    def release_all(self) -> int:
        """Release all held leases through PostgreSQL and return their number.

        The threads at work are not stopped, but their results are no longer stored.
        """
        held, fanning_out = self._snapshot(), set(self._fanning_out)
        for lease in held:
            lease.lost = True

        for attempt in self._database.attempts(_LEAVING_TIMEOUT):
            with attempt as session:
                outbox.promise(session, FAN_OUT, fanning_out, reason="shutdown")
                freed = [_free(session, lease, is_leaving=True) for lease in held]
                released = sum(freed) + len(fanning_out)
                incidents.count(session, IncidentKind.RELEASED, "shutdown", released)
        return released

    def record_loss(self, lease: Lease, noticed_by: str) -> None:
        """Mark a lease as lost and count it among the incidents, once."""
        with self._lock:
            if lease.lost:
                return
            lease.lost = True
            self._losses[noticed_by] += 1
        log.warning("lease.lost", **lease.names, noticed_by=noticed_by)

    def beat(self) -> bool:
        """Renew all leases once; mark and count those that are lost.

        Returns whether the database could be reached.
        """
        held, fanning_out = self._snapshot(), set(self._fanning_out)
        with self._lock:
            tokens = dict(self._tokens)
        if not (held or fanning_out or tokens or self._abandoned or self._losses):
            return True
        try:
            with self._database.write() as session:
                if fanning_out:  # jobs before chunks, as everywhere
                    jobs.record_progress(session, fanning_out)
                    outbox.defer(session, fanning_out, self._duration)
                for lease in self._lost(session, held):
                    self.record_loss(lease, "heartbeat")
                self._release_abandoned(session)
                with self._lock:
                    losses = self._losses.copy()
                for noticed_by, number in sorted(losses.items()):
                    incidents.count(session, IncidentKind.LEASE_LOST, noticed_by, number)
                counted = losses
                kept = self._extend(session, {token: tokens[token][0] for token in tokens})
        except ServiceUnavailableError as error:
            # An intake detects and reports a lost lease itself.
            level = logging.WARNING if held or fanning_out else logging.INFO
            log.log(level, "lease.not_extended", count=len(held), reason=error.what)
            return False
        with self._lock:
            self._losses -= counted
        for token in tokens.keys() - kept:
            on_loss = tokens[token][1]
            if on_loss is not None:
                on_loss()
        return True

    def _lost(self, session: Session, held: list[Lease]) -> list[Lease]:
        kept = self._extend(session, {lease.token: lease.work[0] for lease in held})
        return [
            lease
            for lease in held
            if lease.token not in kept
            and lease.token in self._held
            and not leases.has_ended(session, *lease.work)
        ]

    def _extend(self, session: Session, held: Mapping[uuid.UUID, type[Leased]]) -> set[uuid.UUID]:
        kept: set[uuid.UUID] = set()
        for table in _LOCK_ORDER:
            tokens = [token for token, leased in held.items() if leased is table]
            kept |= leases.extend(session, table, tokens, self._duration)
        return kept

    def _release_abandoned(self, session: Session) -> None:
        for token, lease in list(self._abandoned.items()):
            if _free(session, lease, is_leaving=False):
                log.info("lease.released", **lease.names)
            # If the commit fails, the lease expires, and recovery finds the work.
            self._abandoned.pop(token, None)

    def _snapshot(self) -> list[Lease]:
        with self._lock:
            return list(self._held.values())

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        usual = self._heartbeat.total_seconds()
        seconds = usual
        while not self._stopped.wait(seconds):
            try:
                # After an outage, leases are extended before recovery checks them.
                seconds = usual if self.beat() else min(usual, _OUTAGE_PAUSE_SECONDS)
            except Exception:  # a failed beat must not prevent the next one
                log.exception("lease.defect")


def _free(session: Session, lease: Lease, *, is_leaving: bool) -> bool:
    """Release work and promise its next message; `is_leaving` if this process stops normally."""
    free = leases.release if is_leaving else claims.abandon
    freed = free(session, *lease.work)
    if freed:
        lease.promise(session, "shutdown" if is_leaving else "database unavailable")
    return freed
