"""The connection of a client: settings, database, and services."""

from __future__ import annotations

from pathlib import Path
from threading import RLock

from pydantic import SecretStr

from chordwise.embedded import stack
from chordwise.embedded.home import Level
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.startup import open_context
from chordwise.settings import Settings
from chordwise.storage.database import Database, open_engine, require_compatible
from chordwise.storage.metadata import require_ready
from chordwise.storage.postgresql import admitted

_CONNECTIONS = 5


class Connection:
    """A connection that is opened on first use and can be shared by threads."""

    def __init__(self, settings: Settings, config: Path | None = None) -> None:
        self._given = self._settings = settings
        self._config = config
        self._database: Database | None = None
        self._context: Context | None = None
        self._turn = RLock()

    @property
    def settings(self) -> Settings:
        """The settings, with the addresses of the embedded services once they are started."""
        return self._settings

    @property
    def database(self) -> Database:
        """The database; an embedded one is started first.

        Raises:
            ConfigurationError: The schema is not compatible with this version.
            ServiceUnavailableError: The database cannot be reached.
        """
        with self._turn:
            if self._database is None:
                engine = open_engine(self.address, pool_size=_CONNECTIONS, name="chordwise client")
                admitted(lambda: require_compatible(engine))
                self._database = Database(engine)
            return self._database

    @property
    def address(self) -> SecretStr:
        """The address of the database; an embedded one is started first."""
        with self._turn:
            if self._settings.database_url is None:
                self._reach(Level.DATABASE)
            return self._settings.require_database_url()

    @property
    def context(self) -> Context:
        """The context to submit work with; embedded services are started first."""
        with self._turn:
            if self._context is None:
                admitted(lambda: require_ready(self.database.engine))
                self._reach(Level.ALL)
                self._context = open_context(self._settings, "client", _CONNECTIONS)
            return self._context

    def close(self) -> None:
        """Close the connections; submitted work continues."""
        with self._turn:
            if self._context is not None:
                self._context.leases.close()
                self._context.database.close()
                self._context = None
            if self._database is not None:
                self._database.close()
                self._database = None

    def _reach(self, level: Level) -> None:
        self._settings = stack.ensure(self._given, level, config=self._config)
