"""The process that executes due schedules, one at a time, while a thread extends their leases."""

from __future__ import annotations

import time
from threading import Event, Thread

import structlog

from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.schedules.runner import ScheduleRunner
from chordwise.settings import Settings

log = structlog.get_logger(__name__)

_POLL_SECONDS = 2.0
_OUTAGE_SECONDS = 5.0
_IDLE_SECONDS = 30.0


def check(settings: Settings) -> None:
    """Check the commands of the schedules in the settings.

    Raises:
        ConfigurationError: A command line is invalid.
    """
    from chordwise.cli import scheduled  # noqa: PLC0415 - it loads the commands

    scheduled.check_all(settings)


def execute_due(context: Context, stop: Event) -> None:
    """Execute occurrences until there is nothing to do for a while, or `stop` is set.

    A command that is running then is interrupted, and released after the current file.
    """
    from chordwise.cli.scheduled import CommandExecutor  # noqa: PLC0415 - it loads the commands

    runner = ScheduleRunner(context, CommandExecutor(context.settings).execute, stop.is_set)
    heartbeat = context.settings.pipeline.heartbeat_seconds
    Thread(target=_keep, args=(runner, stop, heartbeat), name="leases", daemon=True).start()
    worked_at, pause = time.monotonic(), 0.0
    while not stop.wait(pause) and time.monotonic() - worked_at < _IDLE_SECONDS:
        pause = _work(runner)
        if pause == 0.0:
            worked_at = time.monotonic()


def _work(runner: ScheduleRunner) -> float:
    """Execute one occurrence; return the seconds until the next attempt."""
    try:
        return 0.0 if runner.work() else _POLL_SECONDS
    except ServiceUnavailableError as error:
        log.warning("schedule.postponed", reason=error.what)
    except Exception:  # the process has to outlive a defect
        log.exception("schedule.defect")
    return _OUTAGE_SECONDS


def _keep(runner: ScheduleRunner, stop: Event, heartbeat_seconds: float) -> None:
    """Extend the leases until `stop` is set; then interrupt the current command."""
    while not stop.wait(heartbeat_seconds):
        try:
            runner.beat()
        except ServiceUnavailableError as error:
            log.warning("schedule.postponed", reason=error.what)
    runner.interrupt()
