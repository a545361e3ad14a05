"""From the settings to something to work with: the stack, the database, the context."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from chordwise.cli.invocation import Invocation
from chordwise.embedded import llama, stack
from chordwise.embedded.stack import Level
from chordwise.settings import Settings
from chordwise.storage import revisions
from chordwise.storage.database import Database, admitted, open_engine

if TYPE_CHECKING:
    from chordwise.pipeline.runtime.context import Context

_WORKING = "chordwise.pipeline.runtime.startup"


def reach(
    invocation: Invocation, settings: Settings | None = None, level: Level = Level.DATABASE
) -> Settings:
    """Start what is missing of the stack; return the settings with the addresses in them.

    Raises:
        ConfigurationError: A setting stands in the way.
        ServiceUnavailableError: A service does not start.
    """
    if settings is None:
        settings = invocation.settings()
    if level is Level.ALL:
        # Celery takes a second to load, which a stack takes to start, too.
        threading.Thread(target=importlib.import_module, args=(_WORKING,)).start()
    note = invocation.screen.note
    return stack.ensure(settings, level, config=invocation.config, on_progress=note)


@contextmanager
def database(
    settings: Settings, require: Callable[[Engine], None] = revisions.require_compatible
) -> Iterator[Database]:
    """Open the database, which has to be at a schema that suits this version.

    Raises:
        ConfigurationError: There is none, it has to be migrated, or `require` refuses it.
        ServiceUnavailableError: It cannot be reached.
    """
    engine = open_engine(settings.require_database_url(), pool_size=2, name="chordwise command")
    try:
        admitted(lambda: require(engine))
        yield Database(engine)
    finally:
        engine.dispose()


@contextmanager
def read(settings: Settings) -> Iterator[Session]:
    """Open the database, and a session that only reads."""
    with database(settings) as opened, opened.read() as session:
        yield session


@contextmanager
def write(settings: Settings) -> Iterator[Session]:
    """Open the database, and a session that commits at its end."""
    with database(settings) as opened, opened.write() as session:
        yield session


def commit(database: Database, change: Callable[[Session], int]) -> int:
    """Run a change in a transaction of its own, and return what it returns."""
    with database.write() as session:
        return change(session)


def require_own_database(settings: Settings) -> None:
    """Make sure that a database which is not embedded can be used, before anything is started.

    Else a wrong address would replace the workers that are at work by ones that cannot be.

    Raises:
        ConfigurationError: It has to be migrated, or refuses us.
        ServiceUnavailableError: It cannot be reached.
    """
    if settings.database_url is not None:
        with database(settings):
            return


@contextmanager
def working_context(settings: Settings) -> Iterator[Context]:
    """Open a context to submit and retry with; the database has to let us write.

    Raises:
        ConfigurationError: A setting is missing, or the database does not suit us as it is.
        ServiceUnavailableError: The database cannot be reached.
    """
    # Celery comes with it: only commands that work on runs pay for loading that.
    from chordwise.pipeline.runtime.startup import open_context  # noqa: PLC0415 - see above
    from chordwise.storage.readiness import require_ready  # noqa: PLC0415 - it knows all tables

    with database(settings, require_ready):
        context = open_context(settings, "command")
    try:
        yield context
    finally:
        context.leases.close()
        context.database.close()


def with_model(invocation: Invocation, settings: Settings, model: str) -> Settings:
    """Return the settings under which the stack can serve this model.

    A local model needs a server of its own in the stack; any other is a matter of the run alone,
    and must not restart the worker.

    Raises:
        ConfigurationError: There is no such model.
    """
    named = [settings.model_named(each) for each in settings.names_asked(model)]
    if model == settings.model or not any(map(llama.is_served_here, named)):
        return settings
    return invocation.settings(model=model)


def for_run(invocation: Invocation, name: str, settings: Settings | None = None) -> Settings:
    """Start the whole stack so that it can work on an existing run.

    Raises:
        UsageError: There is no such run.
        ConfigurationError: A setting stands in the way.
        ServiceUnavailableError: A service does not start, or the database cannot be reached.
    """
    from chordwise.storage import runs  # noqa: PLC0415 - the list of runs does without its tables

    if settings is None:
        settings = invocation.settings()
    with read(reach(invocation, settings)) as session:
        model = str(runs.find(session, name).options.get("model") or settings.model)
    return reach(invocation, with_model(invocation, settings, model), Level.ALL)
