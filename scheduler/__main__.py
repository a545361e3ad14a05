"""`python -m scheduler` dispatches and recovers; `… health` asks whether one is alive here."""

from __future__ import annotations

import signal
import sys
from threading import Event

import structlog

from chordwise import settings as settings_module
from chordwise.embedded import lifeline
from chordwise.errors import ChordwiseError, ConfigurationError, ExitCode
from chordwise.pipeline.opening import open_context
from chordwise.settings import Settings
from chordwise.storage import migrating
from chordwise.storage.engine import open_engine, reaching_database
from chordwise.telemetry import liveness, logging
from scheduler.leadership import Leadership
from scheduler.loop import Loop

log = structlog.get_logger(__name__)


def main() -> int:
    """Run until told to stop; return an exit code of docs/command-line.md."""
    try:
        settings = settings_module.load()
        if sys.argv[1:] == ["health"]:
            alive = liveness.is_shown(settings.home, "scheduler")
            return ExitCode.SUCCESS if alive else ExitCode.UNAVAILABLE
        logging.configure(settings.logging, "scheduler")
        return schedule(settings)
    except ChordwiseError as error:
        sys.stderr.write(f"{error.what}\n{error.hint}\n")
        return error.exit_code


def schedule(settings: Settings) -> int:
    """Run the loop until a signal comes.

    Raises:
        ConfigurationError: No database, no broker, or another schema than this version's.
        ServiceUnavailableError: The database cannot be reached at the start.
    """
    if settings.database_url is None:
        raise ConfigurationError("No database is configured.", "Set CHORDWISE_DATABASE_URL.")
    engine = open_engine(settings.database_url, pool_size=1, name="chordwise leader")
    with reaching_database():
        migrating.require_current(engine)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    lifeline.watch(stop.set)
    log.info("scheduler.started")
    Loop(open_context(settings, "scheduler"), Leadership(engine)).run(stop)
    log.info("scheduler.stopped")
    return ExitCode.SUCCESS


if __name__ == "__main__":
    sys.exit(main())
