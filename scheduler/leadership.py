"""One leader among any number of schedulers, by an advisory lock of PostgreSQL."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from chordwise.storage.engine import reaching_database

_LOCK = 4_271_002  # any number will do, as long as it is always this one


class Leadership:
    """Holds the lock as long as its connection lives; a killed leader frees it with its socket."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def hold(self) -> bool:
        """Tell whether this process leads, trying to become the leader if it does not.

        Raises:
            ServiceUnavailableError: The database cannot be reached; nobody leads here.
        """
        with reaching_database():
            try:
                return self._try()
            except DBAPIError:
                self.give_up()
                raise

    def give_up(self) -> None:
        """Let another process lead."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def _try(self) -> bool:
        if self._connection is not None:
            self._connection.execute(text("SELECT 1"))
            self._connection.commit()
            return True
        connection = self._engine.connect()
        got = bool(connection.scalar(text("SELECT pg_try_advisory_lock(:l)"), {"l": _LOCK}))
        connection.commit()
        if got:
            self._connection = connection
        else:
            connection.close()
        return got
