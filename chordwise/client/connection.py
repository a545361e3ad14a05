"""What a client is connected to: settings, the database, and the services that do the work."""

from __future__ import annotations

from pathlib import Path
from threading import RLock

from pydantic import SecretStr

from chordwise.embedded import stack
from chordwise.embedded.home import Level
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.startup import open_context
from chordwise.settings import Settings
from chordwise.storage import revisions
from chordwise.storage.database import Database, admitted, open_engine
from chordwise.storage.readiness import require_ready

_CONNECTIONS = 5


class Connection:
    """Opened at the first use; threads may share it."""

    def __init__(self, settings: Settings, config: Path | None = None) -> None:
        self._given = self._settings = settings
        self._config = config
        self._database: Database | None = None
        self._context: Context | None = None
        self._turn = RLock()

    @property
    def settings(self) -> Settings:
        """The settings, with the addresses of what is embedded once that was started."""
        return self._settings

    @property
    def database(self) -> Database:
        """The database, which is started where it is embedded.

        Raises:
            ConfigurationError: It has to be migrated.
            ServiceUnavailableError: It cannot be reached.
        """
        with self._turn:
            if self._database is None:
                engine = open_engine(self.address, pool_size=_CONNECTIONS, name="chordwise client")
                admitted(lambda: revisions.require_compatible(engine))
                self._database = Database(engine)
            return self._database

    @property
    def address(self) -> SecretStr:
        """Where the database is; it is started where it is embedded."""
        with self._turn:
            if self._settings.database_url is None:
                self._reach(Level.DATABASE)
            return self._settings.require_database_url()

    @property
    def context(self) -> Context:
        """What work is submitted with; starts worker and scheduler where they are embedded."""
        with self._turn:
            if self._context is None:
                admitted(lambda: require_ready(self.database.engine))
                self._reach(Level.ALL)
                self._context = open_context(self._settings, "client", _CONNECTIONS)
            return self._context

    def close(self) -> None:
        """Close the connections; what was submitted goes on."""
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
