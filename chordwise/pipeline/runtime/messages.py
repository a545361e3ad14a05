"""The only module that sends messages: the Celery application and its messages."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeVar

from celery import Celery, chord
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.runtime import broker
from chordwise.settings import Settings, service_addresses

FAN_OUT = "chordwise.fan_out"
ANALYZE_SLICE = "chordwise.analyze_slice"
SYNTHESIZE = "chordwise.synthesize"

MAX_SLICE = 32
"""The maximum number of chunks in a message."""

CONTROL_QUEUE = "chordwise.control"
CHUNK_QUEUE = "chordwise.chunks"
Sliced = TypeVar("Sliced")

_KEY_PREFIX = "chordwise:"
# Workers take messages of a lower number first; Valkey has a list for each of them.
_URGENT, _NIGHTLY = 0, 6
_DAY = 86_400
# The time without an answer after which a connection is closed: the network may have lost it.
_SILENCE_SECONDS = 10


def open_app(settings: Settings) -> Celery:
    """Return the Celery application as all processes configure it.

    Raises:
        ConfigurationError: No broker is configured.
    """
    url = service_addresses.celery_address(broker.require_url(settings).get_secret_value())
    app = Celery("chordwise", broker=url, backend=url, set_as_current=False)
    app.conf.update(_reliability(settings), **_hygiene())
    return app


def _reliability(settings: Settings) -> dict[str, object]:
    """Return the settings that prevent losses (docs/decisions/0003-celery-settings.md)."""
    return {
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "worker_prefetch_multiplier": 1,
        "worker_deduplicate_successful_tasks": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A full broker refuses to bind a queue: retry instead of ending.
        "broker_channel_error_retry": True,
        "broker_transport_options": {
            "visibility_timeout": settings.worker.visibility_timeout_seconds,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": _SILENCE_SECONDS,
            "health_check_interval": _SILENCE_SECONDS,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "max_connections": 100,
            "global_keyprefix": _KEY_PREFIX,
            "priority_steps": [_URGENT, _NIGHTLY],
        },
        "result_backend_transport_options": {"global_keyprefix": _KEY_PREFIX},
        "result_backend_always_retry": True,
        "result_backend_max_retries": 60,
        "result_backend_max_sleep_between_retries_ms": 5_000,
        "redis_socket_timeout": _SILENCE_SECONDS,
        "redis_socket_connect_timeout": 5,
        "result_expires": _DAY,
        "result_chord_expires": 3 * _DAY,
    }


def _hygiene() -> dict[str, object]:
    """Return the settings that keep the broker small, private and quiet."""
    return {
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "enable_utc": True,
        "timezone": "UTC",
        "task_default_queue": CONTROL_QUEUE,
        "task_routes": {ANALYZE_SLICE: {"queue": CHUNK_QUEUE}},
        "task_track_started": False,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


class Messenger:
    """Sends ids to the workers; a message that arrives twice is harmless."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send(self, task: str, ids: Sequence[uuid.UUID], *, is_nightly: bool = False) -> None:
        """Send one message; a nightly one is taken when no other is left.

        Raises:
            ServiceUnavailableError: The broker did not accept it.
        """
        with reaching_broker():
            self._app.send_task(
                task,
                args=list(map(str, ids)),
                ignore_result=True,
                retry=False,
                priority=_priority(is_nightly=is_nightly),
            )

    def start_chord(
        self, job_id: uuid.UUID, slices: Sequence[Sequence[uuid.UUID]], *, is_nightly: bool = False
    ) -> None:
        """Send the slices of a job's chunks as one flat chord whose body is the synthesis.

        A single slice needs no chord: the end of the last chunk writes the message for the
        synthesis.

        Raises:
            ServiceUnavailableError: The broker did not accept all of it; recovery sends the rest.
        """
        if len(slices) == 1:
            self.send(ANALYZE_SLICE, slices[0], is_nightly=is_nightly)
            return
        priority = _priority(is_nightly=is_nightly)
        header = [
            self._app.signature(
                ANALYZE_SLICE, args=tuple(map(str, chunk_ids)), immutable=True, priority=priority
            )
            for chunk_ids in slices
        ]
        body = self._app.signature(SYNTHESIZE, args=(str(job_id),), immutable=True)
        with reaching_broker():
            chord(header, body, app=self._app).apply_async()

    def is_idle(self) -> bool:
        """Return whether no message waits for a worker.

        Raises:
            ServiceUnavailableError: The broker cannot be reached.
        """
        with reaching_broker(), self._app.pool.acquire(block=True) as connection:
            channel = connection.default_channel
            lists = [
                channel._q_for_pri(queue, priority)  # noqa: SLF001 - kombu's name of the list
                for queue in (CONTROL_QUEUE, CHUNK_QUEUE)
                for priority in (_URGENT, _NIGHTLY)
            ]
            return not any(channel.client.llen(name) for name in lists)


def _priority(*, is_nightly: bool) -> int:
    return _NIGHTLY if is_nightly else _URGENT


@contextmanager
def reaching_broker() -> Iterator[None]:
    """Translate errors that keep a message from the broker.

    Raises:
        ServiceUnavailableError: The broker cannot be reached, is full, or refuses access.
    """
    try:
        yield
    except (KombuError, RedisError, OSError) as error:
        raise ServiceUnavailableError(
            f"The broker cannot be reached: {type(error).__name__}.", "Run `chordwise doctor`."
        ) from error


def slice_size(settings: Settings) -> int:
    """Return the number of chunks in a message: at most as many as are analyzed at once."""
    return min(MAX_SLICE, settings.worker.concurrency)


def sliced(chunks: Sequence[Sliced], size: int = MAX_SLICE) -> list[Sequence[Sliced]]:
    """Split chunks into slices of nearly equal size, one for each message."""
    count = -(-len(chunks) // size)
    ends = [len(chunks) * number // count for number in range(count + 1)] if count else []
    return [chunks[start:end] for start, end in pairwise(ends)]
