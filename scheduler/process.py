"""A scheduler: `python -m scheduler` runs it; `… health` asks whether one is alive here.

It starts itself twice more, as `… inbox` and `… schedules`, so that dispatch and recovery continue
whatever happens to a process that reads files.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from threading import Event

import structlog

from chordwise.embedded import processes
from chordwise.errors import ExitCode
from chordwise.pipeline.inbox.folders import inboxes_of
from chordwise.pipeline.runtime import broker
from chordwise.pipeline.runtime.child_process import ChildProcess
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.startup import (
    open_context,
    require_files,
    run_process,
    wait_until_ready,
)
from chordwise.readers import limits
from chordwise.settings import PipelineSettings, Settings
from chordwise.storage import outbox
from chordwise.storage.database import open_engine
from chordwise.telemetry import liveness, logging
from scheduler import inbox, schedules
from scheduler.leadership import Leadership
from scheduler.listener import Listener
from scheduler.loop import Loop

log = structlog.get_logger(__name__)

_FILES = 48
_LEADER_SECONDS = 10.0
# More than that of other processes, and less than that of the parsers.
_READERS_SCORE = 500


def main() -> int:
    """Run until a signal arrives; return an exit code (docs/command-line.md)."""
    return run_process("scheduler", _run)


def _run(settings: Settings) -> int:
    logging.configure(settings.logging, "scheduler")
    part = _PARTS.get(sys.argv[1]) if sys.argv[1:] else None
    return run_part(settings, part) if part else schedule(settings)


def schedule(settings: Settings) -> int:
    """Wait for the database, then run the loop until a signal arrives.

    Raises:
        ConfigurationError: No database or broker is configured, the schema is not compatible, or
            the command of a schedule is invalid.
        DatabaseRefusedError: The database refuses access.
    """
    stop = _stopped_in_order()
    if settings.schedules:
        schedules.check(settings)
    broker.require_database(settings)
    require_files(_FILES)
    context = open_context(settings, "scheduler")
    if wait_until_ready(settings, "scheduler", stop):
        run(settings, context, stop)
    return ExitCode.SUCCESS


def run_part(settings: Settings, do: Callable[[Context, Event], None]) -> int:
    """Run a part of the scheduler in this process, which the kernel ends first if memory is short.

    Raises:
        ConfigurationError: No database or broker is configured, or inboxes cannot be watched.
    """
    stop = _stopped_in_order()
    limits.set_oom_score(_READERS_SCORE)
    require_files(_FILES)
    do(open_context(settings, "scheduler"), stop)
    return ExitCode.SUCCESS


def run(settings: Settings, context: Context, stop: Event) -> None:
    """Run the chores until `stop` is set.

    Raises:
        ConfigurationError: No database is configured, or inboxes cannot be watched.
    """
    if context.settings.inbox.is_watched:
        inboxes_of(context.settings)
    url = settings.require_database_url()
    seconds = _leader_seconds(settings.pipeline)
    engine = open_engine(url, pool_size=1, name="chordwise leader", statement_seconds=seconds)
    leadership = Leadership(engine, silence_seconds=2 * seconds)
    wake = Event()
    listening = open_engine(url, pool_size=1, name="chordwise listener")
    liveness.forget(settings.home, inbox.PROCESS)
    listener = Listener(listening, outbox.CHANNEL, wake)
    loop = Loop(context, leadership, listener, wake)
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


def _stopped_in_order() -> Event:
    """Return an event that a signal, or the end of the parent process, sets."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    processes.watch_parent(stop.set)
    return stop


def _leader_seconds(pipeline: PipelineSettings) -> float:
    """Return how long a leader may be silent; after twice that, the server admits another."""
    at_least = min(_LEADER_SECONDS, pipeline.lease_seconds / 2)
    return max(at_least, 2 * pipeline.recovery_interval_seconds)


_PARTS: Mapping[str, Callable[[Context, Event], None]] = {
    "inbox": inbox.watch,
    "schedules": schedules.execute_due,
}
