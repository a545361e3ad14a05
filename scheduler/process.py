"""A scheduler: `python -m scheduler` runs it; `… health` asks whether one is alive here.

It starts itself twice more, as `… inbox` and `… schedules`, so that dispatch and recovery continue
whatever happens to a process that reads files.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from threading import Event, Thread

import structlog

from chordwise import machine
from chordwise.errors import ExitCode, ServiceUnavailableError
from chordwise.pipeline.diagnosis.shared_figures import SharedFigures
from chordwise.pipeline.inbox.folders import inboxes_of
from chordwise.pipeline.runtime import broker
from chordwise.pipeline.runtime.child_process import ChildProcess
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.startup import (
    open_context,
    require_files,
    run_process,
    stopped_in_order,
    wait_until_ready,
)
from chordwise.pipeline.schedules.occurrences import ScheduleRunner
from chordwise.settings import Settings
from chordwise.storage import outbox
from chordwise.storage.database import open_engine
from chordwise.telemetry import liveness, logging, metrics
from scheduler import inbox
from scheduler.loop import Leadership, Listener, Loop

log = structlog.get_logger(__name__)

_FILES = 48
_LEADER_SECONDS = 10.0
# More than that of other processes, and less than that of the parsers.
_READERS_SCORE = 500
_SCHEDULE_POLL_SECONDS, _SCHEDULE_OUTAGE_SECONDS, _SCHEDULE_IDLE_SECONDS = 2.0, 5.0, 30.0


def main() -> int:
    """Run until a signal arrives; return an exit code (docs/command-line.md)."""
    return run_process("scheduler", _run)


def _run(settings: Settings) -> int:
    logging.configure(settings.logging, "scheduler")
    part = _PARTS.get(sys.argv[1]) if sys.argv[1:] else None
    if part is None:
        return schedule(settings)
    metrics.join(sys.argv[1])
    stop = stopped_in_order()
    machine.set_oom_score(_READERS_SCORE)  # the kernel ends it first if memory is short
    require_files(_FILES)
    part(open_context(settings, "scheduler"), stop)
    return ExitCode.SUCCESS


def schedule(settings: Settings) -> int:
    """Wait for the database, then run the loop until a signal arrives.

    Raises:
        ConfigurationError: No database or broker is configured, the schema is not compatible,
            the command of a schedule is invalid, or traces need an extra.
        DatabaseRefusedError: The database refuses access.
    """
    stop = stopped_in_order()
    if settings.schedules:
        from chordwise.cli import scheduled  # noqa: PLC0415 - it loads the commands

        scheduled.check_all(settings)
    broker.require_database(settings)
    require_files(_FILES)
    context = open_context(settings, "scheduler")
    if wait_until_ready(settings, "scheduler", stop):
        run(settings, context, stop)
    return ExitCode.SUCCESS


def run(settings: Settings, context: Context, stop: Event) -> None:
    """Run the chores until `stop` is set.

    Raises:
        ConfigurationError: No database is configured, or inboxes cannot be watched.
    """
    if context.settings.inbox.is_watched:
        inboxes_of(context.settings)
    url = settings.require_database_url()
    # A leader may be silent for so long; after twice that, the server admits another.
    at_least = min(_LEADER_SECONDS, settings.pipeline.lease_seconds / 2)
    seconds = max(at_least, 2 * settings.pipeline.recovery_interval_seconds)
    engine = open_engine(url, pool_size=1, name="chordwise leader", statement_seconds=seconds)
    leadership = Leadership(engine, silence_seconds=2 * seconds)
    wake = Event()
    listening = open_engine(url, pool_size=1, name="chordwise listener")
    liveness.forget(settings.home, inbox.PROCESS)
    listener = Listener(listening, outbox.CHANNEL, wake)
    loop = Loop(context, leadership, listener, wake)
    figures = SharedFigures(settings, context.database)
    metrics.serve(settings, "scheduler", settings.metrics.scheduler_port, figures)
    parts = [
        ChildProcess(
            context,
            ("scheduler", "inbox"),
            stop,
            is_wanted=lambda: context.settings.inbox.is_watched,
        ),
        ChildProcess(
            context, ("scheduler", "schedules"), stop, is_wanted=lambda: loop.waiting.schedules
        ),
    ]
    log.info("scheduler.started")
    for part in parts:
        part.start()
    loop.run(stop)
    for part in parts:
        part.wait()
    log.info("scheduler.stopped")


def execute_schedules(context: Context, stop: Event) -> None:
    """Execute occurrences until there is nothing to do for a while, or `stop` is set.

    A command that is running then is interrupted, and released after the current file.
    """
    from chordwise.cli.scheduled import CommandExecutor  # noqa: PLC0415 - it loads the commands

    runner = ScheduleRunner(context, CommandExecutor(context.settings).execute, stop.is_set)

    def interrupt() -> None:
        stop.wait()
        runner.interrupt()

    Thread(target=interrupt, name="interrupt", daemon=True).start()
    worked_at, pause = time.monotonic(), 0.0
    while not stop.wait(pause) and time.monotonic() - worked_at < _SCHEDULE_IDLE_SECONDS:
        pause = _execute_one(runner)
        if pause == 0.0:
            worked_at = time.monotonic()


def _execute_one(runner: ScheduleRunner) -> float:
    """Return the seconds until the next attempt."""
    try:
        return 0.0 if runner.work() else _SCHEDULE_POLL_SECONDS
    except ServiceUnavailableError as error:
        log.warning("schedule.postponed", reason=error.what)
    except Exception:  # the process has to outlive a defect
        log.exception("schedule.defect")
    return _SCHEDULE_OUTAGE_SECONDS


_PARTS: Mapping[str, Callable[[Context, Event], None]] = {
    "inbox": inbox.watch,
    "schedules": execute_schedules,
}
