"""Keeping the leases of this process alive, and giving them back when it has to go."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlalchemy.orm import Session, sessionmaker

from chordwise.errors import LeaseLostError, ServiceUnavailableError
from chordwise.pipeline.messages import ANALYZE_CHUNK, SYNTHESIZE
from chordwise.storage import chunks, jobs, outbox
from chordwise.storage.engine import reaching_database

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Lease:
    """The right of one thread to work on a chunk, or on a job's synthesis (`chunk_id` is None)."""

    job_id: uuid.UUID
    chunk_id: uuid.UUID | None = None
    token: uuid.UUID = field(default_factory=uuid.uuid4)
    lost: bool = False

    def require(self) -> None:
        """Go on only while the lease is ours.

        Raises:
            LeaseLostError: Somebody else has taken the work over.
        """
        if self.lost:
            raise LeaseLostError(f"The lease of job {self.job_id} is lost.")


class LeaseKeeper:
    """One thread that prolongs every lease of this process."""

    def __init__(
        self, sessions: sessionmaker[Session], duration: timedelta, heartbeat: timedelta
    ) -> None:
        self._sessions = sessions
        self._duration = duration
        self._heartbeat = heartbeat
        self._held: dict[uuid.UUID, Lease] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def holding(self, lease: Lease) -> Iterator[Lease]:
        """Keep a claimed lease alive inside the block."""
        with self._lock:
            self._held[lease.token] = lease
            self._start()
        try:
            yield lease
        finally:
            with self._lock:
                self._held.pop(lease.token, None)

    def release_all(self) -> int:
        """Give everything held back through PostgreSQL; return how much that was.

        The threads at work are not stopped, but what they find is not stored any more.
        """
        released = 0
        for lease in self._snapshot():
            lease.lost = True
            with reaching_database(), self._sessions.begin() as session:
                released += _give_back(session, lease)
        return released

    def beat(self) -> None:
        """Prolong every lease once; those that are lost are marked so."""
        for lease in self._snapshot():
            try:
                with reaching_database(), self._sessions.begin() as session:
                    kept = self._extend(session, lease)
            except ServiceUnavailableError as error:
                log.warning("lease.not_extended", job_id=str(lease.job_id), reason=error.what)
                continue
            if not kept and lease.token in self._held:
                lease.lost = True
                log.warning("lease.lost", job_id=str(lease.job_id), chunk_id=str(lease.chunk_id))

    def _extend(self, session: Session, lease: Lease) -> bool:
        if lease.chunk_id is None:
            return jobs.extend_lease(session, lease.job_id, lease.token, self._duration)
        return chunks.extend_lease(session, lease.chunk_id, lease.token, self._duration)

    def _snapshot(self) -> list[Lease]:
        with self._lock:
            return list(self._held.values())

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._heartbeat.total_seconds()):
            try:
                self.beat()
            except Exception:  # whatever happens to one beat, the next one has to come
                log.exception("lease.defect")


def _give_back(session: Session, lease: Lease) -> bool:
    if lease.chunk_id is None:
        given = jobs.release(session, lease.job_id, lease.token)
        if given:
            outbox.put(session, SYNTHESIZE, lease.job_id, reason="shutdown")
        return given
    given = chunks.release(session, lease.chunk_id, lease.token)
    if given:
        outbox.put(session, ANALYZE_CHUNK, lease.job_id, lease.chunk_id, reason="shutdown")
    return given
