"""`python -m worker` starts a worker; `python -m worker health` asks whether one is alive here."""

from __future__ import annotations

import os
import signal
import sys
import warnings

import structlog
from celery.exceptions import SecurityWarning

from chordwise import settings as settings_module
from chordwise.embedded import lifeline
from chordwise.errors import ChordwiseError, ExitCode
from chordwise.pipeline import messages
from chordwise.pipeline.opening import open_context
from chordwise.settings import Settings
from chordwise.storage import migrating
from chordwise.storage.engine import open_engine, reaching_database
from chordwise.telemetry import liveness, logging
from worker import tasks
from worker.liveness import Liveness
from worker.shutdown import Shutdown

log = structlog.get_logger(__name__)


def main() -> int:
    """Run until told to stop; return an exit code of docs/command-line.md."""
    try:
        settings = settings_module.load()
        if sys.argv[1:] == ["health"]:
            alive = liveness.is_shown(settings.home, "worker")
            return ExitCode.SUCCESS if alive else ExitCode.UNAVAILABLE
        logging.configure(settings.logging, "worker")
        check(settings)
        return work(settings)
    except ChordwiseError as error:
        sys.stderr.write(f"{error.what}\n{error.hint}\n")
        return error.exit_code


def check(settings: Settings) -> None:
    """Refuse to start on a wrong database.

    Raises:
        ConfigurationError: No database, no broker, or another schema than this version's.
        ServiceUnavailableError: The database cannot be reached.
    """
    if settings.database_url is not None:
        with reaching_database():
            migrating.require_current(open_engine(settings.database_url, pool_size=1))


def work(settings: Settings) -> int:
    """Consume messages on the threads pool until a signal comes."""
    # Celery warns root because of pickle; we accept nothing but JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    concurrency = settings.worker.concurrency
    context = open_context(settings, "worker", connections=concurrency + 2)
    app = messages.open_app(settings)
    tasks.register(app, context)
    Liveness.home = settings.home
    app.steps["worker"].add(Liveness)
    Shutdown(context, settings.worker.shutdown_grace_seconds).install()
    lifeline.watch(stop_at_once)
    worker = app.Worker(
        pool="threads",
        concurrency=concurrency,
        queues=[messages.CONTROL_QUEUE, messages.CHUNK_QUEUE],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        loglevel=settings.logging.level,
    )
    log.info("worker.started", concurrency=concurrency)
    worker.start()
    return int(worker.exitcode or ExitCode.SUCCESS)


def stop_at_once() -> None:
    """Leave in order when the supervisor is gone: its successor starts another worker."""
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
