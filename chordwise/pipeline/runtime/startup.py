"""Opens the context of a process from its settings."""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from random import Random
from threading import Event

import structlog
from sqlalchemy import Engine

from chordwise.domain.visible_text import visible
from chordwise.embedded import processes
from chordwise.errors import (
    ChordwiseError,
    ConfigurationError,
    DatabaseRefusedError,
    ExitCode,
    ServiceUnavailableError,
)
from chordwise.pipeline.models.model_client import Models, server_of
from chordwise.pipeline.runtime.context import Context, open_stores
from chordwise.pipeline.runtime.leases import LeaseKeeper
from chordwise.pipeline.runtime.messages import Messenger, open_app
from chordwise.settings import Settings, load
from chordwise.storage import metadata
from chordwise.storage.database import Database, open_engine, translate_errors
from chordwise.storage.postgresql import STATEMENT_SECONDS
from chordwise.telemetry import liveness

_MAX_CONNECTIONS = 20
_GROUPS = 5


def open_context(settings: Settings, name: str, connections: int = 5) -> Context:
    """Return a context; nothing is connected before the first use.

    Raises:
        ConfigurationError: Database or broker are not configured.
    """
    url = settings.require_database_url()
    metadata.configure()
    pipeline = settings.pipeline
    opened = partial(
        open_engine,
        url,
        name=f"chordwise {name}",
        # A longer statement would end after its lease.
        statement_seconds=min(STATEMENT_SECONDS, pipeline.lease_seconds),
    )
    database = Database(opened(pool_size=min(connections, _MAX_CONNECTIONS)))
    together = Database(opened(pool_size=_GROUPS, keeps_plans=True))
    # Its statements end while the leases last: work that waits for the database must not prevent
    # its own lease from being renewed.
    between = (pipeline.lease_seconds - pipeline.heartbeat_seconds) / 3
    engine = open_engine(
        url,
        pool_size=1,
        name=f"chordwise {name} leases",
        statement_seconds=min(pipeline.heartbeat_seconds, between),
    )
    return Context(
        settings=settings,
        database=database,
        stores=open_stores(settings, database, together),
        models=Models(settings, server_of(settings)),
        messenger=Messenger(open_app(settings)),
        leases=LeaseKeeper(
            Database(engine),
            timedelta(seconds=pipeline.lease_seconds),
            timedelta(seconds=pipeline.heartbeat_seconds),
        ),
        random=Random(),  # noqa: S311 - jitter needs no secrecy
    )


log = structlog.get_logger(__name__)


def run_process(process: str, run: Callable[[Settings], int]) -> int:
    """Run a process, or print its state if the last argument is `health`; return an exit code."""
    try:
        settings = load()
        if sys.argv[-1:] == ["health"]:
            sign = liveness.last_sign(settings.home, process)
            sys.stdout.write(f"{sign}\n")
            return ExitCode.SUCCESS if sign.is_healthy else ExitCode.UNAVAILABLE
        return run(settings)
    except ChordwiseError as error:
        sys.stderr.write(visible(f"{error.what}\n{error.hint}\n"))
        return error.exit_code


def stopped_in_order() -> Event:
    """Return an event that a signal, or the end of the parent process, sets."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    processes.watch_parent(stop.set)
    return stop


_FIRST_PAUSE_SECONDS = 0.5
# Shorter than the silence after which a health check reports a process as dead.
_MAX_PAUSE_SECONDS = liveness.INTERVAL_SECONDS


def require_files(count: int, setting: str = "") -> None:
    """Raise the limit of open files to this number; `setting` is the setting that needs it.

    Raises:
        ConfigurationError: The system allows fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= count:
        if soft != resource.RLIM_INFINITY and soft < count:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
        return
    raise ConfigurationError(
        f"This process may open {hard} files at once, and needs {count}.",
        "Raise the limit (ulimit -n, LimitNOFILE)" + (f", or lower {setting}." if setting else "."),
    )


def wait_until_ready(settings: Settings, process: str, stop: Event) -> bool:
    """Wait until the database can be used; return false if `stop` was set meanwhile.

    Raises:
        ConfigurationError: No database is configured, or its schema is not compatible.
        DatabaseRefusedError: The database refuses access.
    """
    url = settings.require_database_url()
    engine = open_engine(url, pool_size=1, name=f"chordwise {process}")
    pause = _FIRST_PAUSE_SECONDS
    try:
        while not stop.is_set():
            if _is_ready(engine, process):
                return True
            liveness.write_heartbeat(settings.home, process, liveness.State.HELD_UP)
            stop.wait(pause)
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)
        return False
    finally:
        engine.dispose()


def _is_ready(engine: Engine, process: str) -> bool:
    try:
        with translate_errors():
            metadata.require_ready(engine)
    except DatabaseRefusedError:
        raise
    except ServiceUnavailableError as error:
        log.warning("database.waiting", process=process, reason=error.what)
        return False
    return True
