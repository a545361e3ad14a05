"""Access to the stack, the database and the working context of a command."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from chordwise.cli.invocation import Invocation
from chordwise.embedded import stack
from chordwise.embedded.home import Level
from chordwise.settings import Settings
from chordwise.storage import postgresql, revisions

if TYPE_CHECKING:
    from psycopg import Connection
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from chordwise.pipeline.runtime.context import Context, ReadingContext
    from chordwise.storage.database import Database
    from chordwise.storage.runs import Run

_WORKING = "chordwise.pipeline.runtime.startup"


def reach(
    invocation: Invocation, settings: Settings | None = None, level: Level = Level.DATABASE
) -> Settings:
    """Start the missing services; return the settings with the addresses of the services.

    Raises:
        ConfigurationError: A setting prevents the start.
        ServiceUnavailableError: A service does not start.
    """
    if settings is None:
        settings = invocation.settings()
    if level is Level.ALL:
        threading.Thread(target=_load_early).start()
    note = invocation.screen.note
    return stack.ensure(settings, level, config=invocation.config, on_progress=note)


def _load_early() -> None:
    """Load Celery, which takes a second, while the stack starts."""
    with suppress(RuntimeError):  # the command has ended meanwhile
        importlib.import_module(_WORKING)


@contextmanager
def reading(settings: Settings) -> Iterator[Connection]:
    """Open a read-only connection to the database, without SQLAlchemy, for relations.

    Raises:
        ConfigurationError: No database is configured, or its schema is not of this version.
        ServiceUnavailableError: It cannot be reached.
    """
    with postgresql.reading(settings.require_database_url()) as connection:
        revisions.require_suitable(connection)
        yield connection


@contextmanager
def database(
    settings: Settings, require: Callable[[Engine], None] | None = None
) -> Iterator[Database]:
    """Open the database after `require`, or else `require_compatible`, has checked it.

    Raises:
        ConfigurationError: No database is configured, or `require` refuses it.
        ServiceUnavailableError: It cannot be reached.
    """
    from chordwise.storage.database import (  # noqa: PLC0415 - loads SQLAlchemy
        Database,
        open_engine,
        require_compatible,
    )

    engine = open_engine(settings.require_database_url(), pool_size=2, name="chordwise command")
    try:
        postgresql.admitted(lambda: (require or require_compatible)(engine))
        yield Database(engine)
    finally:
        engine.dispose()


@contextmanager
def read(settings: Settings) -> Iterator[Session]:
    """Open the database and a read-only session."""
    with database(settings) as opened, opened.read() as session:
        yield session


@contextmanager
def write(settings: Settings) -> Iterator[Session]:
    """Open the database and a session that commits at the end."""
    with database(settings) as opened, opened.write() as session:
        yield session


@contextmanager
def reading_context(settings: Settings) -> Iterator[ReadingContext]:
    """Open a context to read and to estimate with, which can also ask models."""
    from chordwise.pipeline.runtime import context  # noqa: PLC0415 - slow

    with database(settings) as opened:
        yield context.reading_context(settings, opened)


def require_external_database(settings: Settings) -> None:
    """Check a database that is not embedded, before any service is started.

    Otherwise a wrong address would replace running workers with workers that cannot connect.

    Raises:
        ConfigurationError: It needs a migration, or refuses the connection.
        ServiceUnavailableError: It cannot be reached.
    """
    if settings.database_url is not None:
        with database(settings):
            return


@contextmanager
def working_context(invocation: Invocation, settings: Settings) -> Iterator[Context]:
    """Open a context to submit and retry with, on a writable database.

    Raises:
        ConfigurationError: A setting is missing, or the database is not ready for writing.
        ServiceUnavailableError: The database cannot be reached.
    """
    from chordwise.pipeline.runtime.startup import open_context  # noqa: PLC0415 - loads Celery
    from chordwise.storage.metadata import require_ready  # noqa: PLC0415 - loads all tables

    with database(settings, require_ready):
        context = replace(open_context(settings, "command"), occurrence=invocation.occurrence)
    try:
        yield context
    finally:
        context.leases.close()
        context.database.close()


def with_model(invocation: Invocation, settings: Settings, model: str) -> Settings:
    """Return the settings with which the stack can serve this model.

    Only a local model changes them, as the stack starts its server. Any other model is an option
    of the run and must not restart the worker.

    Raises:
        ConfigurationError: The model is unknown.
    """
    from chordwise.embedded import llama  # noqa: PLC0415 - rarely needed

    models = [settings.model_named(name) for name in settings.selected_names(model)]
    if model == settings.model or not any(map(llama.is_served_here, models)):
        return settings
    return invocation.settings(model=model)


def find_run(settings: Settings, name: str) -> Run:
    """Return the run with a name or id, or the latest run.

    Raises:
        UsageError: The run is unknown.
        ServiceUnavailableError: The database cannot be reached.
    """
    from chordwise.storage import runs  # noqa: PLC0415 - loads the tables

    with read(settings) as session:
        return runs.find(session, name)


def for_run(
    invocation: Invocation, name: str, settings: Settings | None = None
) -> tuple[Settings, Run]:
    """Start the whole stack for an existing run; return the effective settings and the run.

    Raises:
        UsageError: The run is unknown.
        ConfigurationError: A setting prevents the start.
        ServiceUnavailableError: A service does not start, or the database cannot be reached.
    """
    if settings is None:
        settings = invocation.settings()
    run = find_run(reach(invocation, settings), name)
    model = str(run.options.get("model") or settings.model)
    return reach(invocation, with_model(invocation, settings, model), Level.ALL), run
