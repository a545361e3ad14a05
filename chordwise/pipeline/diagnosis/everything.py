"""Looking at everything that has to be right before work can be done: what is wrong, what to do."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Engine, text

from chordwise.errors import (
    ChordwiseError,
    ConfigurationError,
    DatabaseRefusedError,
    ExitCode,
    ServiceUnavailableError,
)
from chordwise.pipeline.diagnosis import models, ocr, places, processes, schedules
from chordwise.pipeline.diagnosis.checks import Check, Verdict, guarded
from chordwise.pipeline.runs import user_sql
from chordwise.settings import Settings
from chordwise.storage import revisions
from chordwise.storage.database import open_engine, translate_errors

_GIGABYTE = 1024**3
_LITTLE_DISK = 1 * _GIGABYTE
_NO_DISK = 100 * 1024**2
_LEAST_SERVER_VERSION = 140_000
_CLOCK_TOLERANCE_SECONDS = 5.0


def diagnose(settings: Settings, *, asks_model: bool = False) -> Iterator[Check]:
    """Yield what was found, one check after the other; nothing is raised.

    The settings hold the addresses of database and broker where those run. `asks_model` sends one
    tiny request to the model, which may cost money.
    """
    yield guarded("limits", lambda: _limits(settings))
    yield guarded("disk", lambda: _disk(settings.home))
    yield guarded("ocr", lambda: ocr.look_at_ocr(settings.readers))
    yield from _database_checks(settings)
    yield guarded("broker", lambda: processes.look_at_broker(settings))
    yield processes.look_at_processes(settings)
    yield from places.look_at_places(settings)
    yield from schedules.configured(settings)
    for name in _names(settings):
        yield guarded(f"model {name}", partial(models.model, settings, name))
    yield guarded(models.PAUSES, lambda: models.pauses(settings))
    if asks_model:
        yield guarded("question", lambda: models.question(settings))


def _names(settings: Settings) -> Iterable[str]:
    """Return the names of the models that may be asked, each once."""
    try:
        asked = settings.names_asked(settings.model)
    except ConfigurationError:
        asked = (settings.model,)  # the look at it says what is missing
    return dict.fromkeys((*asked, *settings.fallback))


def _limits(settings: Settings) -> Check:
    """Say which times hold; those that contradict each other are refused with the settings."""
    lease, heartbeat = settings.pipeline.lease_seconds, settings.pipeline.heartbeat_seconds
    question, half = settings.retries.total_seconds, settings.worker.chunk_seconds
    return Check(
        name="limits",
        finding=f"heartbeat {heartbeat:g} < lease {lease:g} s; question {question:g} ≤ {half:g} s",
    )


def _disk(home: Path) -> Check:
    folder = home.expanduser()
    existing = next(each for each in (folder, *folder.parents) if each.is_dir())
    free = shutil.disk_usage(existing).free
    finding = f"{free / _GIGABYTE:.1f} GB free for {folder}"
    if free >= _LITTLE_DISK:
        return Check(name="disk", finding=finding)
    return Check(
        name="disk",
        verdict=Verdict.WARN if free >= _NO_DISK else Verdict.FAIL,
        finding=finding,
        hint="Make room, or set CHORDWISE_HOME to a larger disk.",
        exit_code=ExitCode.SUCCESS if free >= _NO_DISK else ExitCode.CONFIGURATION,
    )


def _database_checks(settings: Settings) -> Iterator[Check]:
    if settings.database_url is None:
        return
    engine = open_engine(settings.database_url, pool_size=1, name="chordwise doctor")
    try:
        reached = guarded("database", lambda: _database(engine))
        yield reached
        if reached.verdict is not Verdict.FAIL:
            yield guarded("schema", lambda: _schema(engine))
            yield guarded("clock", lambda: _clock(engine))
            yield _reader(settings)
            yield from schedules.added(settings, engine)
    finally:
        engine.dispose()


def _database(engine: Engine) -> Check:
    with _reaching(), engine.connect() as connection:
        version = int(connection.scalar(text("SHOW server_version_num")) or 0)
        name = connection.scalar(text("SHOW server_version"))
    if version < _LEAST_SERVER_VERSION:
        raise ConfigurationError(f"PostgreSQL {name} is too old.", "Chordwise needs 14 or newer.")
    return Check(name="database", finding=f"PostgreSQL {name} answers")


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        with translate_errors():
            yield
    except DatabaseRefusedError:
        raise
    except ServiceUnavailableError as error:
        raise ServiceUnavailableError(
            error.what, "Is the server up, and is CHORDWISE_DATABASE_URL right?"
        ) from error


def _schema(engine: Engine) -> Check:
    with translate_errors():
        revisions.require_compatible(engine)
    return Check(name="schema", finding=f"up to date ({revisions.newest_revision()})")


def _clock(engine: Engine) -> Check:
    with translate_errors(), engine.connect() as connection:
        theirs = connection.scalar(text("SELECT clock_timestamp()"))
    ours = datetime.now(UTC)  # noqa: TID251 - the clock of this machine is what is looked at
    apart = abs((ours - theirs).total_seconds()) if theirs else 0.0
    if apart <= _CLOCK_TOLERANCE_SECONDS:
        return Check(name="clock", finding=f"{apart:.1f} s apart from the database's")
    return Check(
        name="clock",
        verdict=Verdict.WARN,
        finding=f"{apart:.0f} s apart from the database's",
        hint="Leases go by the database's clock; set both by NTP.",
    )


def _reader(settings: Settings) -> Check:
    """Without the role everything works but `chordwise sql`: a warning is enough."""
    if settings.database_url is None:
        raise ConfigurationError("No database is configured.")
    try:
        callable_ = user_sql.callable_functions(settings.database_url)
    except ChordwiseError as error:
        return Check(name="reader", verdict=Verdict.WARN, finding=error.what, hint=error.hint)
    if callable_:
        return Check(
            name="reader",
            verdict=Verdict.WARN,
            finding=f"{user_sql.READER} can call {', '.join(callable_)}",
            hint="A superuser revokes them from PUBLIC: docs/operations.md, “The role of readers”.",
        )
    return Check(name="reader", finding=f"{user_sql.READER} can log in (chordwise sql)")
