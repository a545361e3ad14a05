"""The worker's connection to the broker: observed, and tolerant of a full broker.

Kombu is only partly typed; untyped calls are marked.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import ClassVar

import structlog
from celery import Celery, bootsteps
from celery.backends.redis import RedisBackend
from celery.worker.consumer import Consumer
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from kombu.transport import redis
from kombu.transport.virtual import Empty
from redis.exceptions import OutOfMemoryError, RedisError

from worker.rejections import UNREADABLE, Rejection, Rejections, rejection_of
from worker.threads import ChunkThreads, Consumption

BROKER_ERRORS = (OperationalError, RedisError, OSError)
"""The errors of a broker that is unavailable or full."""

log = structlog.get_logger(__name__)

_MAX_PAUSE_SECONDS = 5.0
_PIPE_BYTES = 4_096


class TolerantReceipts(redis.QoS):
    """The broker's record of messages that were received and not yet acknowledged.

    A full broker delivers messages, which frees its memory, but cannot record them. Kombu would
    lose the message, and Celery would end. Here the message is processed without a record: if this
    process dies, PostgreSQL has the unfinished work.
    """

    unsettled: ClassVar[set[str]] = set()
    """Finished messages, of all connections, whose end the broker has not recorded yet."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self._was_full = False

    chunk_threads: ClassVar[ChunkThreads | None] = None

    def can_consume(self) -> bool:
        """Return whether to request another message: only if there is room for its work."""
        has_room = self.chunk_threads is None or self.chunk_threads.has_room
        return has_room and bool(super().can_consume())  # type: ignore[no-untyped-call]

    def append(self, message: object, delivery_tag: str) -> None:
        """Record a message, in the broker if possible."""
        try:
            super().append(message, delivery_tag)  # type: ignore[no-untyped-call]
            self._was_full = False
        except OutOfMemoryError:
            self._log_full()
            super(redis.QoS, self).append(message, delivery_tag)  # type: ignore[no-untyped-call]

    def ack(self, delivery_tag: str) -> None:
        """Remove a message here and in the broker, now or when the broker answers again.

        Kombu would count it as held while this connection lives, and would stop taking messages.
        """
        self.unsettled.add(delivery_tag)
        super(redis.QoS, self).ack(delivery_tag)  # type: ignore[no-untyped-call]  # kombu's
        self._settle()

    def restore_visible(self, *args: object, **options: object) -> None:
        """Return messages that others have held too long; later, if the broker is full.

        Celery's loop calls this every few seconds.
        """
        self._settle()
        try:
            super().restore_visible(*args, **options)  # type: ignore[no-untyped-call]
        except OutOfMemoryError:
            self._log_full()

    def _settle(self) -> None:
        tags = list(self.unsettled)
        if not tags:
            return
        try:
            with self.pipe_or_acquire() as pipe:
                pipe.zrem(self.unacked_index_key, *tags).hdel(self.unacked_key, *tags).execute()
        except BROKER_ERRORS as error:
            log.warning("worker.not_acknowledged", count=len(tags), reason=type(error).__name__)
        else:
            self.unsettled.difference_update(tags)

    def _log_full(self) -> None:
        if not self._was_full:
            log.warning("worker.broker_full")
        self._was_full = True


class ObservedChannel(redis.Channel):
    """Reports each answer of the broker to the consumption, one of its transport options.

    Tolerates messages without an envelope, on which kombu would end the worker.
    """

    QoS = TolerantReceipts
    from_transport_options = (  # type: ignore[assignment]  # one more than kombu's
        *redis.Channel.from_transport_options,
        "consumption",
    )
    consumption: Consumption
    _shared_client: object = None

    def _create_client(self, asynchronous: bool = False) -> object:  # noqa: FBT001, FBT002 - kombu's
        """Return a client; the one that acknowledges is made once for all messages."""
        if asynchronous:
            return super()._create_client(asynchronous)  # type: ignore[no-untyped-call]
        shared = self._shared_client
        if getattr(shared, "connection_pool", None) is not self.pool:
            shared = self._shared_client = super()._create_client()  # type: ignore[no-untyped-call]
        return shared

    def _queue_bind(self, *binding: object) -> None:
        """Bind a queue if the broker has room; Chordwise addresses its queues by their names."""
        try:
            super()._queue_bind(*binding)  # type: ignore[no-untyped-call]  # kombu's
        except OutOfMemoryError:
            log.warning("worker.broker_full")

    def _brpop_read(self, **options: object) -> object:
        self.connection.is_readable = False
        try:
            result: object = super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except Empty:
            self.consumption.answered()
            raise
        except UNREADABLE:
            if self.connection.is_readable:
                raise
            self.connection.rejections.add(Rejection.ENVELOPE)
            result = True
        self.consumption.answered()
        return result


class ObservedTransport(redis.Transport):
    """Delivers Chordwise's messages; others have left the broker already and are dropped."""

    Channel = ObservedChannel
    rejections: Rejections
    is_readable = False

    def _deliver(self, message: object, queue: str) -> None:
        self.is_readable = True
        reason = rejection_of(message)
        if reason is None:
            super()._deliver(message, queue)  # type: ignore[no-untyped-call]  # kombu's
        else:
            self.rejections.add(reason, queue)


class ObservedConnection(Connection):
    """A connection that uses this transport for any scheme of its address."""

    def get_transport_cls(self) -> type[ObservedTransport]:
        """Return the transport."""
        return ObservedTransport

    def ensure_connection(self, *args: object, **options: object) -> ObservedConnection:
        """Connect with short pauses, so that work resumes soon after a long outage."""
        pauses = {"interval_max": _MAX_PAUSE_SECONDS, **options}
        super().ensure_connection(*args, **pauses)  # type: ignore[no-untyped-call]
        return self


def observe(
    app: Celery, consumption: Consumption, rejections: Rejections, threads: ChunkThreads
) -> None:
    """Make all connections of the application report the messages that they receive.

    A connection requests messages while the threads have room, and as soon as they have room again.
    """
    ObservedTransport.rejections = rejections
    TolerantReceipts.chunk_threads = threads
    app.steps["consumer"].add(Waking)
    threads.on_room = Waking.wake
    app.amqp.Connection = ObservedConnection
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        "consumption": consumption,
    }


class Waking(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    """Wakes Celery's event loop, which otherwise polls once a second, from another thread."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    ends: ClassVar[tuple[int, int]] = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def start(self, parent: Consumer) -> None:
        """Watch the wake-up channel on each new connection to the broker."""
        parent.hub.add_reader(self.ends[0], self._drain)

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            os.read(self.ends[0], _PIPE_BYTES)

    @classmethod
    def wake(cls) -> None:
        """Wake the event loop."""
        with suppress(BlockingIOError):
            os.write(cls.ends[1], b"\0")


class TolerantResults(RedisBackend):  # type: ignore[misc]  # Celery ships no types
    """A result store that tolerates a full or unavailable broker; PostgreSQL has the state.

    Celery would treat a success that cannot be stored as a failure of its task, and report that to
    the chord.
    """

    consumption: ClassVar[Consumption]
    was_full: ClassVar[bool] = False

    def store_result(
        self, task_id: str, result: object, *args: object, **options: object
    ) -> object:
        """Store how a task ended, if there is room."""
        try:
            with self.consumption.recording():
                outcome: object = super().store_result(task_id, result, *args, **options)
        except OutOfMemoryError:
            self._log_full()
            return result
        TolerantResults.was_full = False
        return outcome

    def on_chord_part_return(self, *args: object, **options: object) -> None:
        """Count a task of a chord; the job's own countdown is in PostgreSQL."""
        try:
            with self.consumption.recording():
                super().on_chord_part_return(*args, **options)
        except OutOfMemoryError:
            self._log_full()
        except BROKER_ERRORS as error:
            log.warning("task.end_not_recorded", reason=type(error).__name__)

    def on_task_call(self, producer: object, task_id: str) -> None:
        """Do nothing: no caller waits for a result, and subscribing needs the broker."""

    def _log_full(self) -> None:
        if not self.was_full:
            log.warning("task.end_not_recorded", reason="the broker is full")
        TolerantResults.was_full = True


def use_tolerant_results(app: Celery, consumption: Consumption) -> None:
    """Make `TolerantResults` the result store; storing does not occupy a slot of `consumption`."""
    TolerantResults.consumption = consumption
    path = f"{__name__}:{TolerantResults.__name__}"
    app.loader.override_backends = {"redis": path, "rediss": path}
