"""`python -m scheduler` dispatches and recovers; `… health` asks whether one is alive here."""

from __future__ import annotations

import signal
import sys
from threading import Event

import structlog

from chordwise import settings as settings_module
from chordwise.embedded import lifeline
from chordwise.errors import ChordwiseError, ConfigurationError, ExitCode
from chordwise.pipeline import starting
from chordwise.pipeline.context import Context
from chordwise.pipeline.opening import open_context
from chordwise.settings import PipelineSettings, Settings
from chordwise.storage.engine import open_engine
from chordwise.telemetry import liveness, logging
from scheduler import inbox
from scheduler.leadership import Leadership
from scheduler.loop import Loop

log = structlog.get_logger(__name__)

_FILES = 48
_LEADER_SECONDS = 10.0


def main() -> int:
    """Run until told to stop; return an exit code of docs/command-line.md."""
    try:
        settings = settings_module.load()
        if sys.argv[1:] == ["health"]:
            return health(settings)
        logging.configure(settings.logging, "scheduler")
        return schedule(settings)
    except ChordwiseError as error:
        sys.stderr.write(f"{error.what}\n{error.hint}\n")
        return error.exit_code


def health(settings: Settings) -> ExitCode:
    """Say in a sentence what the scheduler of this home does; fail where it is held up."""
    sign = liveness.last_sign(settings.home, "scheduler")
    sys.stdout.write(f"{sign}\n")
    return ExitCode.SUCCESS if sign.is_healthy else ExitCode.UNAVAILABLE


def schedule(settings: Settings) -> int:
    """Wait for the database, then run the loop until a signal comes.

    Raises:
        ConfigurationError: No database, no broker, or a database that does not suit us as it is.
        DatabaseRefusedError: The database does not let us in.
    """
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    lifeline.watch(stop.set)
    starting.require_broker(settings)
    starting.require_files(_FILES)
    context = open_context(settings, "scheduler")
    if starting.wait_until_ready(settings, "scheduler", stop):
        run(settings, context, stop)
    return ExitCode.SUCCESS


def run(settings: Settings, context: Context, stop: Event) -> None:
    """Do the chores over and over until `stop` is set.

    Raises:
        ConfigurationError: No database is configured.
    """
    if settings.database_url is None:
        raise ConfigurationError("No database is configured.", "Set CHORDWISE_DATABASE_URL.")
    leadership = Leadership(
        open_engine(
            settings.database_url,
            pool_size=1,
            name="chordwise leader",
            statement_seconds=_leader_seconds(settings.pipeline),
        )
    )
    log.info("scheduler.started")
    with inbox.watched(context, stop):
        Loop(context, leadership).run(stop)
    log.info("scheduler.stopped")


def _leader_seconds(pipeline: PipelineSettings) -> float:
    """Return how long a leader may be silent: twice that, and the server lets another one lead."""
    most = min(_LEADER_SECONDS, pipeline.lease_seconds / 2)
    return max(most, 2 * pipeline.recovery_interval_seconds)


if __name__ == "__main__":
    sys.exit(main())
