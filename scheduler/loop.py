"""The scheduler's loop: dispatches often, recovers regularly, and survives every outage."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Event, Thread

import psycopg
import structlog
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from chordwise.domain.failure_backoff import FailureBackoff
from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline import batches
from chordwise.pipeline.deliveries import delivery_attempts
from chordwise.pipeline.jobs import dispatch
from chordwise.pipeline.recovery.recover import Waiting, promise_missing, recover, waiting
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.schedules import occurrences
from chordwise.storage.database import translate_errors
from chordwise.storage.postgresql import Lock
from chordwise.telemetry import liveness
from chordwise.telemetry.liveness import State

log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 5.0


class Listener:
    """Sets `wake` for each notification of a channel, and whenever one may have been missed.

    Notifications only reduce latency: a pooler that shares sessions loses them, and so does a lost
    connection. `hears` is true while the session is connected.
    """

    def __init__(self, engine: Engine, channel: str, wake: Event) -> None:
        self.hears = False
        self._engine = engine
        self._channel = channel
        self._wake = wake
        self._stop = Event()
        self._stopped, self._stops = os.pipe()
        self._thread = Thread(target=self._run, name="listener", daemon=True)

    def start(self) -> None:
        """Start listening."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; the thread ends with its connection."""
        self._stop.set()
        os.write(self._stops, b"x")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with translate_errors(), self._engine.connect() as connection:
                    connection.execution_options(isolation_level="AUTOCOMMIT")
                    # Otherwise the server would end a session that only listens.
                    connection.execute(text("SET idle_session_timeout = 0"))
                    connection.execute(text(f"LISTEN {self._channel}"))
                    raw: object = connection.connection.driver_connection
                    try:
                        if isinstance(raw, psycopg.Connection):
                            self._follow(raw)
                    finally:
                        connection.invalidate()  # the pool must not reuse a listening session
            except (ServiceUnavailableError, psycopg.OperationalError) as error:
                log.warning("listener.reconnecting", reason=str(error))
            except Exception:  # the outbox is polled without it
                log.exception("listener.defect")
            self.hears = False
            self._stop.wait(_PAUSE_SECONDS)

    def _follow(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        self.hears = True
        self._wake.set()
        while True:
            ready, _, _ = select.select([connection.fileno(), self._stopped], [], [])
            if self._stopped in ready:
                return
            for _ in connection.notifies(timeout=0):
                self._wake.set()


class Leadership:
    """Holds the lock while its connection lives; the socket of a killed leader releases it.

    The transaction that holds the lock stays open. It has no snapshot, so it does not block vacuum.
    The server ends a connection that is silent for `silence_seconds`.
    """

    def __init__(self, engine: Engine, silence_seconds: float) -> None:
        self._engine = engine
        self._silence = (
            f"SET LOCAL idle_in_transaction_session_timeout = '{round(silence_seconds * 1_000)}ms'"
        )
        self._connection: Connection | None = None

    def hold(self) -> bool:
        """Return whether this process leads; try to become the leader if it does not.

        Raises:
            ServiceUnavailableError: The database cannot be reached; this process does not lead.
        """
        with translate_errors():
            try:
                return self._try()
            except DBAPIError:
                self.release()
                raise

    def release(self) -> None:
        """Release the leadership."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def _try(self) -> bool:
        if self._connection is not None:
            self._connection.execute(text("SELECT 1"))
            return True
        connection = self._engine.connect()
        try:
            connection.execute(text(self._silence))
            connection.execute(text(Lock.LEADER.statement(wait=False)))
        except OperationalError as error:
            connection.close()
            if isinstance(error.orig, LockNotAvailable):
                return False
            raise
        self._connection = connection
        return True


_FORGET_SECONDS = 3_600.0
_OUTAGE_SECONDS = 1.0
_DISPATCH_SECONDS = 2.0
_POLL_SECONDS = 1.0
_SCHEDULES_SECONDS = 10.0
# The longest interval of polling the outbox without a notification, since one may be lost.
_QUIET_SECONDS = 2.0
# Longer than the longest pause between two attempts to store an answer.
_AFTER_OUTAGE_SECONDS = 6.0


@dataclass(slots=True)
class Chore:
    """A task that is repeated at an interval in seconds."""

    name: str
    every_seconds: float
    do: Callable[[], object]
    due_at: float = 0.0
    done_at: float = 0.0


class Loop:
    """Runs the chores one at a time until it is stopped; `wake` is set when the outbox has rows.

    `waiting` is the result of the last query for work of deliveries, batches and schedules.
    """

    def __init__(
        self, context: Context, leadership: Leadership, listener: Listener, wake: Event
    ) -> None:
        settings = context.settings.pipeline
        self._context = context
        self._leadership = leadership
        self._listener = listener
        self._wake = wake
        self.waiting = Waiting()
        self._led = False
        self._acts = False
        self._batching = LeaderWork("batches", partial(batches.tick, context))
        self._is_held_up = False
        self._recovers_from = 0.0
        self._has_synchronized = False
        self._failures = FailureBackoff()
        self._deliveries = LeaderWork("deliveries", self._deliver)
        self._tracing = LeaderWork("traces", _exporter_of(context), _SCHEDULES_SECONDS)
        self._dispatching = Chore("dispatch", settings.dispatch_interval_seconds, self._dispatch)
        self._chores = [
            Chore("recover", settings.recovery_interval_seconds, self._recover),
            self._dispatching,
            Chore("look", _POLL_SECONDS, self._read_waiting),
            Chore("schedules", _SCHEDULES_SECONDS, self._start_schedules),
            Chore("show", liveness.INTERVAL_SECONDS, self._show),
            Chore("forget", _FORGET_SECONDS, self._forget),
        ]

    def run(self, stop: Event) -> None:
        """Run the chores that are due until `stop` is set."""
        self._listener.start()
        Thread(target=self._wake_at, args=(stop,), name="stop", daemon=True).start()
        while not stop.is_set():
            for chore in self._chores:
                self._run_if_due(chore)
            next_due = min(chore.due_at for chore in self._chores)
            if self._wake.wait(max(0.01, next_due - time.monotonic())):
                self._wake.clear()
                self._make_dispatch_due()
        self._listener.stop()
        self._deliveries.stop()
        self._batching.stop()
        self._tracing.stop()
        self._leadership.release()

    def _wake_at(self, stop: Event) -> None:
        stop.wait()
        self._wake.set()

    def _make_dispatch_due(self) -> None:
        """Make the dispatch due now, but no more often than at its interval."""
        chore = self._dispatching
        chore.every_seconds = self._context.settings.pipeline.dispatch_interval_seconds
        chore.due_at = min(chore.due_at, chore.done_at + chore.every_seconds)

    def _run_if_due(self, chore: Chore) -> None:
        if time.monotonic() < chore.due_at:
            return
        pause = 0.0
        try:
            chore.do()
        except ServiceUnavailableError as error:
            log.warning("scheduler.postponed", chore=chore.name, reason=error.what)
            self._is_held_up = True
            pause = _OUTAGE_SECONDS
        except Exception:  # one defect must not stop the other chores
            log.exception("scheduler.defect", chore=chore.name)
            pause = _OUTAGE_SECONDS
        chore.done_at = time.monotonic()
        chore.due_at = chore.done_at + max(pause, chore.every_seconds)

    def _read_waiting(self) -> None:
        """Query whether deliveries, batches or schedules wait, in one statement for all of them."""
        with self._context.database.read() as session:
            self.waiting = waiting(session)
        self._lead()

    def _lead(self) -> None:
        self._batching.lead(leads=self._acts and self.waiting.batches)
        self._deliveries.lead(leads=self._led and self.waiting.deliveries)
        self._tracing.lead(leads=self._led and bool(self._context.settings.traces.endpoint))

    def _deliver(self) -> bool:
        delivery_attempts.skip_unwanted(self._context)
        return delivery_attempts.deliver_next(self._context)

    def _show(self) -> None:
        """Publish the state since the last time, including a chore that was postponed."""
        home = self._context.settings.home
        inbox = liveness.last_sign(home, "inbox")
        is_overdue = inbox.state is not None and not inbox.is_healthy
        state = State.OVERDUE if is_overdue else State.WORKING
        state = State.HELD_UP if self._is_held_up else state
        self._is_held_up = False
        liveness.write_heartbeat(home, "scheduler", state)

    def _dispatch(self) -> None:
        """Send batch after batch, but let the other chores take turns.

        While no message is on its way and PostgreSQL notifies of new rows, the outbox is polled
        less and less often.
        """
        every_seconds = self._context.settings.pipeline.dispatch_interval_seconds
        longer = max(every_seconds, min(_QUIET_SECONDS, 2 * self._dispatching.every_seconds))
        self._dispatching.every_seconds = every_seconds
        ends_at = time.monotonic() + _DISPATCH_SECONDS
        dispatched = dispatch.dispatch(self._context)
        if not dispatched.is_busy and self._listener.hears:
            self._dispatching.every_seconds = longer
        while dispatched.sent >= dispatch.BATCH and time.monotonic() < ends_at:
            dispatched = dispatch.dispatch(self._context)

    def _recover(self) -> None:
        try:
            self._acts = self._acquire_leadership()
            self._lead()
            if self._acts:
                recover(self._context)
        except ServiceUnavailableError:
            self._acts = False
            self._lead()
            # After an outage, workers store their answers before recovery checks the leases.
            self._recovers_from = time.monotonic() + _AFTER_OUTAGE_SECONDS
            raise

    def _acquire_leadership(self) -> bool:
        leads = self._leadership.hold()
        if not leads or time.monotonic() < self._recovers_from:
            self._led = self._led and leads
            return False
        if not self._led:
            promise_missing(self._context)
        self._led = True
        return True

    def _start_schedules(self) -> None:
        """Start what is due if this process leads; a new leader stores its configuration."""
        if not self._leadership.hold():
            self._has_synchronized = False
            return
        if not self._has_synchronized:
            occurrences.synchronize(self._context)
            self._has_synchronized = True
        occurrences.tick(self._context, failures=self._failures)

    def _forget(self) -> None:
        if self._leadership.hold():
            dispatch.forget(self._context)
            promise_missing(self._context)


def _exporter_of(context: Context) -> Callable[[], object]:
    if not context.settings.traces.endpoint:
        return lambda: False
    from chordwise.pipeline.diagnosis.document_traces import DocumentTraces  # noqa: PLC0415 - an extra

    return DocumentTraces(context.settings.traces, context.database).export


_STEP_SECONDS = 1.0
_LEAVING_SECONDS = 5.0


class LeaderWork:
    """Work of the leader in a separate thread, so that the network does not delay the chores.

    `do` makes one step and returns whether another may follow at once. A step that is cut off at
    the end of the process is repeated by the next leader.
    """

    def __init__(
        self, name: str, do: Callable[[], object], every_seconds: float = _STEP_SECONDS
    ) -> None:
        self._do = do
        self._every_seconds = every_seconds
        self._leads = Event()
        self._stopped = Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def lead(self, *, leads: bool) -> None:
        """Start or continue, or pause until this process leads again."""
        if not leads:
            self._leads.clear()
            return
        self._leads.set()
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Stop, and wait briefly for the current step."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(_LEAVING_SECONDS)

    def _run(self) -> None:
        while not self._stopped.wait(self._every_seconds):
            try:
                while self._leads.is_set() and self._do() and not self._stopped.is_set():
                    continue
            except ServiceUnavailableError as error:
                log.warning("scheduler.postponed", chore=self._thread.name, reason=error.what)
            except Exception:  # one defect must not end the thread
                log.exception("scheduler.defect", chore=self._thread.name)
