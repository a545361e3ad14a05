"""A thread that receives PostgreSQL's notifications, so that no loop has to poll."""

from __future__ import annotations

import os
import select
from threading import Event, Thread

import psycopg
import structlog
from sqlalchemy import Engine, text

from chordwise.errors import ServiceUnavailableError
from chordwise.storage.database import translate_errors

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
