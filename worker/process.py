"""A worker: `python -m worker` runs it, `… --queues read` reads files; `… health` checks either.

The first process starts the others, as `python -m worker worker-2` and so on.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from threading import Event, Thread

import psutil
import structlog
from celery.exceptions import SecurityWarning
from celery.signals import worker_ready

from chordwise import machine
from chordwise.embedded import processes
from chordwise.errors import ExitCode, UsageError
from chordwise.pipeline.runtime import broker, messages
from chordwise.pipeline.runtime.startup import (
    open_context,
    require_files,
    run_process,
    wait_until_ready,
)
from chordwise.settings import Settings
from chordwise.telemetry import liveness, logging, metrics
from worker import broker_connection, reading, tasks
from worker.broker_connection import use_tolerant_results
from worker.rejections import Rejections
from worker.shutdown import Shutdown, Siblings, shares_of
from worker.threads import ChunkThreads, Consumption, CountedThreads, Watchdog

log = structlog.get_logger(__name__)

# Measured under load: libraries, pools and the broker's connections; then what each slot holds.
_FILES = 96
_FILES_OF_A_SLOT = 4
_ALLOCATIONS = 3_000
_SWITCH_SECONDS = 0.02
_M_ARENA_MAX, _ARENAS = -8, 1
_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, 32_768
# Messages beside those that have a call in a slot.
_CONTROL_MESSAGES = 4


def main() -> int:
    """Run until a signal arrives; return an exit code (docs/command-line.md)."""
    tune_interpreter()
    return run_process(reading.NAME if sys.argv[1:2] == ["--queues"] else "worker", _run)


def _run(settings: Settings) -> int:
    if sys.argv[1:2] == ["--queues"]:
        if sys.argv[2:] != ["read"]:
            raise UsageError("A worker has no such queue.", "python -m worker --queues read")
        return reading.read(settings)
    name = sys.argv[1] if sys.argv[1:] else "worker"
    logging.configure(settings.logging, name, expected=broker_connection.BROKER_ERRORS)
    check(settings, name)
    return work(settings, name)


def tune_interpreter() -> None:
    """Tune the interpreter for many threads that mostly wait.

    With CPython's own values and glibc's, at 256 calls in flight, the collector took 4 % of the
    CPU, and two processes held 380 MB instead of 343.
    """
    gc.set_threshold(_ALLOCATIONS, *gc.get_threshold()[1:])
    sys.setswitchinterval(_SWITCH_SECONDS)
    with suppress(AttributeError, OSError):  # another C library than glibc
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_M_ARENA_MAX, _ARENAS)
        allocator.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def check(settings: Settings, name: str) -> None:
    """Reject an invalid configuration, and wait for an unavailable database.

    Raises:
        ConfigurationError: There is no database or broker, too few files can be opened, or the
            schema is not compatible.
        DatabaseRefusedError: The database refuses access.
    """
    # Until Celery listens to the signal; a wait for the database can be long.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitCode.SUCCESS))
    processes.watch_parent(terminate)
    broker.require_database(settings)
    files = _FILES + _FILES_OF_A_SLOT * settings.worker.concurrency
    require_files(files, f"worker.concurrency = {settings.worker.concurrency}")
    wait_until_ready(settings, name, Event())


def work(settings: Settings, name: str) -> int:
    """Consume messages in the thread pool until a signal arrives."""
    # Celery warns root because of pickle; we accept nothing but JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    shares = shares_of(settings.worker, machine.usable_cores())
    concurrency = shares[0]
    share = settings.worker.model_copy(update={"concurrency": concurrency})
    settings = settings.model_copy(update={"worker": share})
    if name == "worker":
        metrics.serve(settings, name, settings.metrics.worker_port)
    else:
        metrics.join(name)
    context = open_context(settings, name, connections=concurrency + 2)
    app = messages.open_app(settings)
    rejections = Rejections(context.database)
    rejections.start()
    threads = ChunkThreads(concurrency)
    tasks.register(app, context, rejections, threads)
    messages_at_once = concurrency + _CONTROL_MESSAGES
    CountedThreads.consumption = Consumption(messages_at_once, has_room=lambda: threads.has_room)
    CountedThreads.chunk_threads = threads
    broker_connection.observe(app, CountedThreads.consumption, rejections, threads)
    use_tolerant_results(app, CountedThreads.consumption)
    shutdown = Shutdown(context.leases, settings.worker.shutdown_grace_seconds)
    shutdown.install(app)
    memory = settings.worker.memory_megabytes or limit_megabytes(len(shares))
    siblings = Siblings(context, shares[1:], shutdown.seconds, memory)
    siblings.follow()
    shutdown.wait_for_siblings = siblings.wait
    worker = app.Worker(
        pool=CountedThreads,
        concurrency=messages_at_once,
        queues=[messages.CONTROL_QUEUE, messages.CHUNK_QUEUE],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        loglevel=settings.logging.level,
    )
    log.info("worker.started", concurrency=concurrency, processes=len(shares), megabytes=memory)
    watching = partial(watch_memory, memory, leave=shutdown.leave_large)
    Thread(target=watching, name="memory", daemon=True).start()
    watch(settings, name, CountedThreads.consumption, shutdown)
    worker.start()
    shutdown.begin("Celery has ended by itself")  # no effect after a signal
    siblings.wait()
    return shutdown.exit_code


def watch(settings: Settings, name: str, consumption: Consumption, shutdown: Shutdown) -> None:
    """Check every few seconds whether this worker consumes, and publish the result."""
    watchdog = Watchdog(
        consumption,
        timeout_seconds=settings.worker.consumer_timeout_seconds,
        ping=partial(broker.require_working, broker.require_url(settings)),
        show=partial(liveness.write_heartbeat, settings.home, name),
        leave=shutdown.leave_broken,
    )
    worker_ready.connect(watchdog.begin, weak=False)
    watchdog.start()


def terminate() -> None:
    """Shut down when the supervisor has ended: its successor starts another worker."""
    os.kill(os.getpid(), signal.SIGTERM)


_MEMORY_CHECK_SECONDS = 0.5
# What a process takes that does nothing unusual, as measured under load.
_USUAL_MEGABYTES = 170
_MIN_MEGABYTES, _MAX_MEGABYTES = 256, 2_048
_SHARE, _EXCESS = 0.8, 1.2


def limit_megabytes(processes: int) -> int:
    """Return the limit of each process if the settings have none.

    One process may take most of what the others, if they do nothing unusual, leave of the memory of
    the container or the machine.
    """
    left = machine.memory_megabytes() - _USUAL_MEGABYTES * (processes - 1)
    return max(_MIN_MEGABYTES, min(_MAX_MEGABYTES, int(_SHARE * left)))


def resident_megabytes() -> Iterator[int]:
    """Yield the resident memory of this process twice a second."""
    while not Event().wait(_MEMORY_CHECK_SECONDS):
        yield int(psutil.Process().memory_info().rss) // machine.MEGABYTE


def watch_memory(
    limit: int,
    *,
    leave: Callable[[str, bool], None],
    sizes: Iterable[int] = (),
) -> None:
    """Call `leave` once above the limit, and with `True` each time a fifth above it.

    The resident memory is watched instead of limited: a limit of the kernel (RLIMIT_DATA) would
    raise errors at arbitrary places of all threads, in libraries that do not survive them.
    """
    has_left = False
    for megabytes in sizes or resident_megabytes():
        is_excess = megabytes > _EXCESS * limit
        if is_excess or (megabytes > limit and not has_left):
            has_left = True
            reason = f"it takes {megabytes} MB, and worker.memory_megabytes is {limit}"
            leave(reason, is_excess)
