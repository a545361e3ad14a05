"""All checks of `chordwise doctor`, each with a finding and a hint."""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Engine, make_url, text

from chordwise.embedded import processes, stack
from chordwise.embedded.home import home_at
from chordwise.embedded.processes import ProcessIdentity
from chordwise.errors import (
    ChordwiseError,
    ConfigurationError,
    DatabaseRefusedError,
    ServiceUnavailableError,
)
from chordwise.pipeline.diagnosis import configured_paths, models
from chordwise.pipeline.diagnosis.outcome import Check, CheckStatus, guarded, warning
from chordwise.pipeline.runs import tool_access, user_sql
from chordwise.pipeline.runtime import broker
from chordwise.pipeline.runtime.broker import BrokerReport
from chordwise.readers import failures
from chordwise.readers.reader import Reader, UnreadDocument
from chordwise.settings import ReaderSettings, Settings
from chordwise.storage import revisions
from chordwise.storage.database import connected, open_engine, require_compatible, translate_errors
from chordwise.telemetry import liveness
from chordwise.telemetry.liveness import Sign

_GIGABYTE = 1024**3
_LITTLE_DISK = 1 * _GIGABYTE
_NO_DISK = 100 * 1024**2
_LEAST_SERVER_VERSION = 140_000
_CLOCK_TOLERANCE_SECONDS = 5.0


def diagnose(settings: Settings, *, asks_model: bool = False) -> Iterator[Check]:
    """Yield the checks one by one. Never raises.

    The settings contain the addresses of a running database and broker. `asks_model` sends one
    short request to the model, which may cost money.
    """
    yield guarded("limits", lambda: _limits(settings))
    yield guarded("disk", lambda: _disk(settings.home))
    yield guarded("ocr", lambda: check_ocr(settings.readers))
    yield from _database_checks(settings)
    yield guarded("broker", lambda: check_broker(settings))
    yield check_processes(settings, _elsewhere(settings))
    yield from configured_paths.check_configured_paths(settings)
    for name in _names(settings):
        yield guarded(f"model {name}", partial(models.model, settings, name))
    yield guarded(models.PAUSES, lambda: models.pauses(settings))
    if asks_model:
        yield guarded("question", lambda: models.question(settings))


def _names(settings: Settings) -> Iterable[str]:
    try:
        names = settings.selected_names(settings.model)
    except ConfigurationError:
        names = (settings.model,)  # the check of the model reports the problem
    vision = [settings.readers.vision] if settings.readers.vision else []
    return dict.fromkeys((*names, *settings.fallback, *vision))


def _limits(settings: Settings) -> Check:
    """Show the effective time limits; the settings reject contradictory ones."""
    lease, heartbeat = settings.pipeline.lease_seconds, settings.pipeline.heartbeat_seconds
    question, half = settings.retries.total_seconds, settings.worker.chunk_seconds
    return Check(
        name="limits",
        finding=f"heartbeat {heartbeat:g} s (lease {lease:g} s), "
        f"question {question:g} s (at most {half:g} s)",
    )


def _disk(home: Path) -> Check:
    folder = home.expanduser()
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    finding = f"{free / _GIGABYTE:.1f} GB free for {folder}"
    if free >= _LITTLE_DISK:
        return Check(name="disk", finding=finding)
    hint = "Free disk space, or set CHORDWISE_HOME to a folder on a larger disk."
    if free < _NO_DISK:
        raise ConfigurationError(finding, hint)
    return warning("disk", finding, hint)


def _database_checks(settings: Settings) -> Iterator[Check]:
    if settings.database_url is None:
        return
    with _opened(settings) as engine:
        reached = guarded("database", lambda: _database(engine))
        yield reached
        if reached.status is not CheckStatus.FAIL:
            schema = guarded("schema", lambda: _schema(engine))
            yield schema
            yield guarded("clock", lambda: _clock(engine))
            if schema.status is not CheckStatus.FAIL:
                yield _reader(settings)


@contextmanager
def _opened(settings: Settings) -> Iterator[Engine]:
    engine = open_engine(settings.require_database_url(), pool_size=1, name="chordwise doctor")
    try:
        yield engine
    finally:
        engine.dispose()


def _database(engine: Engine) -> Check:
    with _with_hint(), engine.connect() as connection:
        version = int(connection.scalar(text("SHOW server_version_num")) or 0)
        name = connection.scalar(text("SHOW server_version"))
    if version < _LEAST_SERVER_VERSION:
        raise ConfigurationError(
            f"PostgreSQL {name} is not supported.", "Use PostgreSQL 14 or later."
        )
    return Check(name="database", finding=f"PostgreSQL {name} is reachable")


@contextmanager
def _with_hint() -> Iterator[None]:
    try:
        with translate_errors():
            yield
    except DatabaseRefusedError:
        raise
    except ServiceUnavailableError as error:
        raise ServiceUnavailableError(
            error.what, "Check that the server is running and CHORDWISE_DATABASE_URL is correct."
        ) from error


def _schema(engine: Engine) -> Check:
    with translate_errors():
        require_compatible(engine)
    return Check(name="schema", finding=f"up to date ({revisions.newest_revision()})")


def _clock(engine: Engine) -> Check:
    with translate_errors(), engine.connect() as connection:
        theirs = connection.scalar(text("SELECT clock_timestamp()"))
    ours = datetime.now(UTC)  # noqa: TID251 - checks the clock of this machine
    apart = abs((ours - theirs).total_seconds()) if theirs else 0.0
    if apart <= _CLOCK_TOLERANCE_SECONDS:
        return Check(name="clock", finding=f"differs by {apart:.1f} s from the database clock")
    finding = f"differs by {apart:.0f} s from the database clock"
    return warning("clock", finding, "Leases use the database clock; synchronize both with NTP.")


def _reader(settings: Settings) -> Check:
    """Check the read-only role; without it only `chordwise sql` does not work."""
    url = settings.require_database_url()
    logins = [tool_access.LOGIN]
    if settings.reader_url:
        logins.append(make_url(settings.reader_url.get_secret_value()).username or "")
    try:
        changed = user_sql.changed_settings(url, logins)
        callable_ = user_sql.callable_functions(url)
    except ChordwiseError as error:
        return warning("reader", error.what, error.hint)
    if callable_:
        finding = f"{user_sql.READER} may call {', '.join(callable_)}"
        hint = "Let a superuser revoke them from PUBLIC: docs/operations.md, “The role of readers”."
        return warning("reader", finding, hint)
    if changed:
        finding = f"settings that change how values are written: {'; '.join(changed)}"
        statements = " ".join(changed.values())
        hint = f"Chordwise's own sessions ignore them. An administrator removes them: {statements}"
        return warning("reader", finding, hint)
    return Check(name="reader", finding=f"{user_sql.READER} can log in (chordwise sql)")


_MUCH_MEMORY = 0.7
_MEGABYTE = 1024**2
_PROCESSES = ("worker", "scheduler")
_FIRST_SIGN_SECONDS = 30.0
_POLL_SECONDS = 0.05


def check_broker(settings: Settings) -> Check:
    """Check that the broker accepts and keeps messages and has free memory.

    Raises:
        ConfigurationError: No broker is configured.
        ServiceUnavailableError: The broker is unreachable or full.
    """
    url = broker.require_url(settings)
    report = broker.report(url)
    broker.require_working(url)
    if report.policy != "noeviction":
        finding = f"{report.server} drops messages when memory is short ({report.policy})"
        hint = "Set maxmemory-policy noeviction. Dropped messages are sent again, but later."
        return warning("broker", finding, hint)
    memory = _memory(report)
    if report.memory_share > _MUCH_MEMORY:
        hint = "Raise its maxmemory: a full broker accepts no messages."
        return warning("broker", f"{report.server} is reachable, {memory}", hint)
    kept = "survive" if report.persistent else "do not survive"
    return Check(
        name="broker",
        finding=f"{report.server} is reachable, {memory}; messages {kept} a restart",
    )


def _memory(report: BrokerReport) -> str:
    used = f"{report.memory_used / _MEGABYTE:.1f} MB"
    if not report.memory_limit:
        return f"{used} in use"
    return f"{used} in use, {report.memory_share:.0%} of its maxmemory"


def _elsewhere(settings: Settings) -> Mapping[str, str]:
    """Return the processes of any home or machine; an idle worker only has a broker."""
    signs = {"worker": "a worker that takes messages"} if broker.has_worker(settings) else {}
    with (
        suppress(ChordwiseError),
        _opened(settings) as engine,
        translate_errors(),
        engine.connect() as connection,
    ):
        signs |= connected(connection)
    return signs


def check_processes(settings: Settings, elsewhere: Mapping[str, str]) -> Check:
    """Check for a worker and a scheduler, of this home or among those of any: `elsewhere`."""
    state = stack.find(settings.home)
    running = state.children if state is not None else {}
    signs = [_sign_of(settings.home, name, running.get(name)) for name in _PROCESSES]
    absent = [sign for sign in signs if sign.process not in running and not sign.is_fresh]
    missing = [sign.process for sign in absent if sign.process not in elsewhere]
    if missing:
        finding = f"no {' and no '.join(missing)} is running or connected"
        hint = "Run `chordwise up`, or `python -m worker` and `python -m scheduler`."
        return warning("processes", finding, hint)
    if absent:
        seen = "; ".join(elsewhere[sign.process] for sign in absent)
        return Check(name="processes", finding=f"connected from another home or machine: {seen}")
    return _processes_check(settings, signs)


def _sign_of(home: Path, name: str, running: ProcessIdentity | None) -> Sign:
    """Return the last heartbeat of a process; a process that just started gets time for its first.

    The scheduler may still be loading when the stack is ready.
    """

    def is_decided() -> bool:
        is_new = running is not None and time.time() - running.created_at < _FIRST_SIGN_SECONDS
        is_silent = not liveness.last_sign(home, name).is_fresh
        return not (is_new and is_silent and processes.is_alive(running))

    processes.wait_until(is_decided, _FIRST_SIGN_SECONDS, _POLL_SECONDS)
    return liveness.last_sign(home, name)


def _processes_check(settings: Settings, signs: list[Sign]) -> Check:
    finding = " ".join(str(sign) for sign in signs)
    unhealthy = [sign.process for sign in signs if not sign.is_healthy]
    if not unhealthy:
        return Check(name="processes", finding=finding)
    logs = " and ".join(str(home_at(settings.home).log(process)) for process in unhealthy)
    return warning("processes", finding, f"If this persists, see {logs}.")


# A PDF without text, whose lines draw the word FILE.
_LINES = b"""6 w 2 J
20 40 m 20 80 l 45 80 l S 20 61 m 40 61 l S
65 40 m 65 80 l S
110 40 m 85 40 l 85 80 l S
155 40 m 130 40 l 130 80 l 155 80 l S 130 61 m 150 61 l S
"""
_SCAN = b"""%%PDF-1.4
1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj
2 0 obj <</Type/Pages/Kids[3 0 R]/Count 1>> endobj
3 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 180 120]/Resources<<>>/Contents 4 0 R>> endobj
4 0 obj <</Length %d>> stream
%sendstream endobj
trailer <</Root 1 0 R>>
%%%%EOF
""" % (len(_LINES), _LINES)


def check_ocr(settings: ReaderSettings) -> Check:
    """Recognize a scan of one word if OCR is enabled; otherwise show what reads scans.

    Raises:
        ConfigurationError: OCR or the vision model cannot be used.
    """
    if not settings.ocr and settings.vision:
        if importlib.util.find_spec("PIL") is None:
            what = "readers.vision needs Pillow, which is not installed"
            raise ConfigurationError(what, failures.vision_missing().hint)
        return Check(name="ocr", finding=f"disabled; {settings.vision} reads scans and images")
    if not settings.ocr:
        return Check(name="ocr", finding="disabled (readers.ocr); scans and images are not read")
    with Reader(settings) as reader:
        read = reader.read_bytes(_SCAN, "A scan of one word")
    if isinstance(read, UnreadDocument):
        raise ConfigurationError(read.error.what, read.error.hint) from read.error
    word = read.content.text.strip()
    return Check(name="ocr", finding=f"recognized a test scan ({settings.ocr_languages}): {word}")
