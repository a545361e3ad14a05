"""All checks of `chordwise doctor`, each with a finding and a hint."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Engine, make_url, text

from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType, Stage
from chordwise.domain.grounding import Source
from chordwise.domain.inbox import MARK
from chordwise.embedded import llama, processes, stack
from chordwise.embedded.home import home_at
from chordwise.embedded.processes import ProcessIdentity
from chordwise.errors import (
    ChordwiseError,
    ConfigurationError,
    DatabaseRefusedError,
    ServiceUnavailableError,
    UsageError,
)
from chordwise.llm.prices import price_of
from chordwise.llm.provider import connect
from chordwise.pipeline.asking import Question, ask
from chordwise.pipeline.diagnosis.outcome import Check, CheckStatus, guarded, warning
from chordwise.pipeline.inbox.folders import Inbox, inboxes_of
from chordwise.pipeline.intake.run_options import run_options
from chordwise.pipeline.jobs import run_control
from chordwise.pipeline.models.budgets import PRICE_HINT
from chordwise.pipeline.models.model_client import Models, server_of
from chordwise.pipeline.runs import tool_access, user_sql
from chordwise.pipeline.runtime import broker
from chordwise.pipeline.runtime.broker import BrokerReport
from chordwise.readers import failures
from chordwise.readers.reader import Reader, UnreadDocument
from chordwise.remote import RemoteError, RemotePath
from chordwise.settings import ReaderSettings, Settings
from chordwise.settings.environment import missing_key_finding
from chordwise.settings.locations import require_writable
from chordwise.settings.receivers import Receiver
from chordwise.storage import revisions
from chordwise.storage.database import connected, open_engine, require_compatible, translate_errors
from chordwise.telemetry import liveness
from chordwise.telemetry.liveness import Sign

_GIGABYTE = 1024**3
_LITTLE_DISK = 1 * _GIGABYTE
_NO_DISK = 100 * 1024**2
_LEAST_SERVER_VERSION = 150_000
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
    signs = {"worker": "a worker that takes messages"} if broker.has_worker(settings) else {}
    with (
        suppress(ChordwiseError),
        _opened(settings) as engine,
        translate_errors(),
        engine.connect() as connection,
    ):
        signs |= connected(connection)
    yield check_processes(settings, signs)
    yield from check_configured_paths(settings)
    try:
        names = settings.selected_names(settings.model)
    except ConfigurationError:
        names = (settings.model,)  # the check of the model reports the problem
    vision = [settings.readers.vision] if settings.readers.vision else []
    for name in dict.fromkeys((*names, *settings.fallback, *vision)):
        yield guarded(f"model {name}", partial(check_model, settings, name))
    yield guarded("pauses", lambda: check_pauses(settings))
    if asks_model:
        yield guarded("question", lambda: check_question(settings))


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
    try:
        with translate_errors(), engine.connect() as connection:
            version = int(connection.scalar(text("SHOW server_version_num")) or 0)
            name = connection.scalar(text("SHOW server_version"))
    except DatabaseRefusedError:
        raise
    except ServiceUnavailableError as error:
        raise ServiceUnavailableError(
            error.what, "Check that the server is running and CHORDWISE_DATABASE_URL is correct."
        ) from error
    if version < _LEAST_SERVER_VERSION:
        raise ConfigurationError(
            f"PostgreSQL {name} is not supported.", "Use PostgreSQL 15 or later."
        )
    return Check(name="database", finding=f"PostgreSQL {name} is reachable")


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


def check_processes(settings: Settings, elsewhere: Mapping[str, str]) -> Check:
    """Check for a worker and a scheduler, of this home or among those of any: `elsewhere`."""
    state = stack.find(settings.home)
    running = state.children if state is not None else {}
    signs = [_sign_of(settings.home, name, running.get(name)) for name in _PROCESSES]
    absent = [sign for sign in signs if sign.process not in running and not sign.is_fresh]
    missing = [sign.process for sign in absent if sign.process not in elsewhere]
    if settings.intake.read == "workers" and "reader" not in elsewhere:
        finding = "files are read by workers, and no worker with the queue read is connected"
        return warning("processes", finding, "Run `python -m worker --queues read`.")
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
        is_new = processes.age_seconds(running) < _FIRST_SIGN_SECONDS
        return not is_new or liveness.last_sign(home, name).is_fresh

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


def check_configured_paths(settings: Settings) -> Iterator[Check]:
    """Yield the checks of the configured profiles, inboxes and deliveries."""
    for name in settings.profiles:
        yield guarded(f"profile {name}", partial(_profile, settings, name))
    if settings.inbox.folders:
        yield guarded("inbox", lambda: _inbox(settings))
    for kind, receiver in settings.deliveries.items():
        yield guarded(kind, partial(_receiver, settings, kind, receiver))


def _profile(settings: Settings, name: str) -> Check:
    profile = settings.profiles[name]
    try:
        options = run_options(settings, profile)
    except UsageError as error:
        raise ConfigurationError(error.what, error.hint) from error
    for model in settings.selected_names(options.model):
        settings.model_named(model)
    types = ", ".join(options.types)
    return Check(name=f"profile {name}", finding=f"asks {options.model} for {types}")


def _receiver(settings: Settings, kind: str, receiver: Receiver) -> Check:
    return Check(name=kind, finding=receiver.check(settings))


def _inbox(settings: Settings) -> Check:
    inboxes = inboxes_of(settings).inboxes
    is_remote = any(isinstance(inbox.folder, RemotePath) for inbox in inboxes)
    for inbox in inboxes:
        _require_movable(inbox)
    folders = ", ".join(str(inbox.folder) for inbox in inboxes)
    if not settings.inbox.is_watched:
        return Check(name="inbox", finding=f"{folders}, not watched (inbox.enabled = false)")
    for inbox in inboxes:
        if (reason := _creation_error(inbox.folder)) is not None:
            finding = f"{inbox.folder} cannot be created: {reason}"
            return warning("inbox", finding, "Create it, or change inbox.folders.")
    how = "polled" if settings.inbox.polling or is_remote else "watched"
    return Check(name="inbox", finding=f"{how}: {folders}")


def _require_movable(inbox: Inbox) -> None:
    if isinstance(inbox.folder, RemotePath):
        try:
            inbox.folder.entries()
        except RemoteError as error:
            what = f"inbox.folders: {inbox.folder} {error.strerror}."
            raise ConfigurationError(what, error.hint) from error
        return
    for folder in (inbox.folder, inbox.done, inbox.failed):
        # The scheduler creates missing folders.
        require_writable(_nearest(folder), "inbox.folders")
    if inbox.folder.exists() and not os.access(inbox.folder, os.R_OK, effective_ids=True):
        what = f"inbox.folders: {inbox.folder} cannot be listed by user {os.geteuid()}."
        raise ConfigurationError(
            what,
            f"Make it readable for the user of the scheduler, such as: chmod u+r {inbox.folder}",
        )


def _creation_error(folder: Path) -> str | None:
    """Return why a missing folder cannot be created, by trying; permissions alone do not tell."""
    if isinstance(folder, RemotePath) or folder.exists():
        return None
    try:
        Path(tempfile.mkdtemp(prefix=MARK, dir=_nearest(folder))).rmdir()
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


_MINUTE = 60
_TINY_TEXT = "The meeting is on Monday. Anna brings the report."


def check_model(settings: Settings, name: str) -> Check:
    """Check a model without sending a request.

    Raises:
        ConfigurationError: It is unknown, or a key, a file or an extra is missing.
        ServiceUnavailableError: Its local server does not run.
    """
    model_settings = settings.model_named(name)
    if llama.is_served_here(model_settings):
        if llama.server_address(home_at(settings.home), model_settings.model) is None:
            raise ServiceUnavailableError(
                f"No server runs {model_settings.model}.",
                f"Start it with: chordwise up --model {name}",
            )
        return Check(name=f"model {name}", finding="its server is running on this machine")
    connect(model_settings, settings.api_key_for(model_settings))
    if model_settings.provider == "extractive":
        finding = "built in; it quotes and counts and is not a language model"
        return Check(name=f"model {name}", finding=finding)
    check = Check(name=f"model {name}", finding="name and key are set; --ask sends a test request")
    if keyless := missing_key_finding(settings, name):
        finding, hint = keyless
        check = replace(check, finding=f"{finding}; --ask sends a test request", hint=hint)
    return check if price_of(model_settings).is_known() else _of_unknown_price(settings, check)


def _of_unknown_price(settings: Settings, check: Check) -> Check:
    """Add what an unknown price means for budgets; a warning if there are any budgets."""
    caps = (settings.budget.usd_per_run, settings.budget.usd_per_day)
    of_profiles = (profile.budget_usd for profile in settings.profiles.values())
    if all(cap is None for cap in (*caps, *of_profiles)):
        return replace(check, finding=f"{check.finding}; its price is unknown")
    meaning = "runs with a budget refuse it"
    if settings.budget.allow_unknown_prices:
        meaning = "budgets count only those of its calls whose cost the server reports"
    finding = f"{check.finding}; its price is unknown: {meaning}"
    hint = " ".join(filter(None, (check.hint, PRICE_HINT)))
    return warning(check.name, finding, hint)


def check_question(settings: Settings) -> Check:
    """Send a short request to the model, once, even if it is paused; this may cost money.

    An answer ends the pause for all processes.

    Raises:
        ConfigurationError: The model cannot be used as configured.
        ModelError: The answer is not usable.
    """
    once = settings.retries.model_copy(update={"attempts": 1})
    models = Models(settings.model_copy(update={"retries": once}), server_of(settings))
    task = AnalysisTask(analysis_type=AnalysisType.SUMMARY, stage=Stage.ANALYZE, text=_TINY_TEXT)
    run_control.probe_again(settings, [settings.model])
    started = time.monotonic()
    model = models.open(settings.model)
    source = Source(text=_TINY_TEXT)
    answer = ask(Question(model=model, task=task, source=source))
    seconds = time.monotonic() - started
    return Check(
        name="question", finding=f"{answer.provider}/{answer.model} answered in {seconds:.1f} s"
    )


def check_pauses(settings: Settings) -> Check:
    """Check whether a refused key, model or quota has paused calls for all runs.

    Raises:
        ServiceUnavailableError: The broker is unreachable.
        ConfigurationError: The broker has no database of the number in its address.
    """
    paused = run_control.active_pauses(settings)
    if not paused:
        return Check(name="pauses", finding="no calls are paused")
    first = paused[0]
    minutes = max(1, round(first.seconds / _MINUTE))
    when = f"Calls of all runs are paused for {minutes} min."
    if not first.seconds:
        when = "The next call of any run tries again."
    hint = f"{first.denial.hint} To try again now: chordwise continue RUN.".strip()
    return warning("pauses", f"{first.denial.what} {when}", hint)
