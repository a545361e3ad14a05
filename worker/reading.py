"""`python -m worker --queues read`: reads files of runs and inboxes, without Celery."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime
from threading import Event, Thread

import structlog

from chordwise import machine
from chordwise.errors import ExitCode, ServiceUnavailableError
from chordwise.pipeline.inbox.watch import InboxWatch
from chordwise.pipeline.intake.list_reader import ListReader
from chordwise.pipeline.runtime.startup import (
    open_context,
    require_files,
    stopped_in_order,
    wait_until_ready,
)
from chordwise.readers.reader import ReadingInterruptedError
from chordwise.settings import Settings
from chordwise.telemetry import liveness, logging, metrics
from chordwise.telemetry.liveness import State

log = structlog.get_logger(__name__)

NAME = "reader"
_FILES = 48
# More than that of other processes, and less than that of the parsers.
_SCORE = 500
_IDLE_SECONDS, _PAUSE_SECONDS = 0.3, 1.0


def read(settings: Settings) -> int:
    """Read files until a signal arrives; those that are being read are left to others.

    Raises:
        ConfigurationError: No database is configured, its schema is not compatible, or inboxes
            overlap.
        DatabaseRefusedError: The database refuses access.
    """
    logging.configure(settings.logging, NAME)
    stop = stopped_in_order()
    machine.set_oom_score(_SCORE)
    require_files(_FILES)
    if not wait_until_ready(settings, NAME, stop):
        return ExitCode.SUCCESS
    metrics.serve(settings, NAME, settings.metrics.reader_port)
    context = open_context(settings, NAME)
    watch = InboxWatch(
        context,
        monotonic=time.monotonic,
        now=lambda: datetime.now(UTC),  # noqa: TID251 - the clock
        lists=False,
    )
    with closing(ListReader(context, stop.is_set)) as reader, closing(watch):

        def interrupt() -> None:
            stop.wait()
            reader.reader.interrupt()

        Thread(target=interrupt, name="interrupt", daemon=True).start()
        Thread(target=_show, args=(settings, stop), name="show", daemon=True).start()
        log.info("reader.started")
        while not stop.is_set():
            try:
                is_busy = reader.work() | watch.tick()
                stop.wait(0 if is_busy else _IDLE_SECONDS)
            except ReadingInterruptedError:
                pass
            except ServiceUnavailableError as error:
                log.warning("reader.waiting", reason=error.what)
                stop.wait(_PAUSE_SECONDS)
            except Exception:  # a defect with one file must not end the process
                log.exception("reader.defect")
                stop.wait(_PAUSE_SECONDS)
    log.info("reader.stopped")
    return ExitCode.SUCCESS


def _show(settings: Settings, stop: Event) -> None:
    """Publish that this process lives, even while it reads a large file."""
    while not stop.wait(liveness.INTERVAL_SECONDS):
        liveness.write_heartbeat(settings.home, NAME, State.WORKING)
