"""Elects one leader among any number of schedulers by a lock of PostgreSQL."""

from __future__ import annotations

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from chordwise.storage.database import translate_errors
from chordwise.storage.postgresql import Lock


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
