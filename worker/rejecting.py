"""Messages that are not ours: dropped before Celery sees them, logged without content, counted."""

from __future__ import annotations

import threading
from collections import Counter

import structlog
from kombu.transport import redis

from chordwise.errors import ServiceUnavailableError
from chordwise.storage import incidents
from chordwise.storage.database import Database
from chordwise.storage.incidents import IncidentKind
from worker.envelopes import UNREADABLE, Rejection, reason_against

log = structlog.get_logger(__name__)

_INTERVAL_SECONDS = 1.0


class Rejections:
    """Logs each rejection at once; a thread of its own adds them up in the database.

    The database may be away: what could not be counted is counted later, unless the process ends.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._uncounted: Counter[Rejection] = Counter()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to count."""
        threading.Thread(target=self._run, name="rejections", daemon=True).start()

    def add(self, reason: Rejection, queue: str = "") -> None:
        """Take note of a message that was dropped; its content stays out of the log."""
        log.warning("message.rejected", reason=reason.value, queue=queue)
        with self._lock:
            self._uncounted[reason] += 1

    def count(self) -> None:
        """Write down what has not been counted yet.

        Raises:
            ServiceUnavailableError: The database is away; nothing is lost.
        """
        with self._lock:
            counted, self._uncounted = self._uncounted, Counter()
        try:
            if counted:
                self._write(counted)
        except Exception:
            with self._lock:
                self._uncounted += counted
            raise

    def _write(self, counted: Counter[Rejection]) -> None:
        with self._database.write() as session:
            for reason, number in sorted(counted.items()):
                incidents.count(session, IncidentKind.REJECTED_MESSAGE, reason.value, number)

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(_INTERVAL_SECONDS):
            try:
                self.count()
            except ServiceUnavailableError as error:
                log.warning("message.not_counted", reason=error.what)
            except Exception:  # whatever happens to one count, the next one has to come
                log.exception("message.count_defect")


class Channel(redis.Channel):
    """Survives what is no envelope: kombu would end the worker over it, after taking it out."""

    def _brpop_read(self, **options: object) -> object:
        self.connection.is_readable = False
        try:
            read: object = super()._brpop_read(**options)  # type: ignore[no-untyped-call]  # kombu's
        except UNREADABLE:
            if self.connection.is_readable:
                raise
            self.connection.rejections.add(Rejection.ENVELOPE)
            return True
        return read


class Transport(redis.Transport):
    """Delivers what is ours; what is not has left the broker already, and is gone."""

    Channel = Channel
    rejections: Rejections
    is_readable = False

    def _deliver(self, message: object, queue: str) -> None:
        self.is_readable = True
        reason = reason_against(message)
        if reason is None:
            super()._deliver(message, queue)  # type: ignore[no-untyped-call]  # kombu's
        else:
            self.rejections.add(reason, queue)
