"""A process of the scheduler's for work that may end its process, such as reading files.

Dispatch and recovery do not notice its end; it is counted, and the process started anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from threading import Event, Thread

import structlog

from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.runtime.context import Context
from chordwise.settings.environment import SUPERVISOR_PIPE_VARIABLE, child_environment
from chordwise.storage import incidents
from chordwise.storage.engine import reaching_database
from chordwise.storage.incidents import IncidentKind

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_LEAVING_SECONDS = 12.0
_POLL_SECONDS = 0.5


class Part(Thread):
    """Runs `python -m scheduler NAME` whenever it is wanted, until a stop."""

    def __init__(
        self, context: Context, name: str, is_wanted: Callable[[], bool], stop: Event
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._context = context
        self._is_wanted = is_wanted
        self._stop_event = stop
        self._pause = _FIRST_PAUSE_SECONDS

    def run(self) -> None:
        """Start the process, wait for its end, and start it anew."""
        while not self._stop_event.is_set():
            pause = _LOOK_SECONDS
            try:
                if self._is_wanted():
                    pause = self._live()
            except ServiceUnavailableError as error:
                log.warning("scheduler.put_off", chore=self.name, reason=error.what)
            except Exception:  # the thread has to outlive a defect
                log.exception("scheduler.defect", chore=self.name)
            self._stop_event.wait(pause)

    def wait(self) -> None:
        """Wait until the process has left, after a stop."""
        self.join(_LEAVING_SECONDS + _LOOK_SECONDS)

    def _live(self) -> float:
        """Let the process live; return how long to wait before it is started anew."""
        reading, writing = os.pipe()
        begun_at = time.monotonic()
        try:
            process = self._spawned(reading)
            while process.poll() is None and not self._stop_event.wait(_POLL_SECONDS):
                continue
            status = _ended(process)
        finally:
            os.close(reading)
            os.close(writing)
        if status == 0 or self._stop_event.is_set():
            self._pause = _FIRST_PAUSE_SECONDS
            return _FIRST_PAUSE_SECONDS
        if time.monotonic() - begun_at > _LONGEST_PAUSE_SECONDS:
            self._pause = _FIRST_PAUSE_SECONDS  # it has not died of its start
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        self._count_loss(status, pause)
        return pause

    def _spawned(self, pipe: int) -> subprocess.Popen[bytes]:
        environment = child_environment(self._context.settings.home)
        return subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-P", "-m", "scheduler", self.name],
            stdin=subprocess.DEVNULL,
            env={**environment, SUPERVISOR_PIPE_VARIABLE: str(pipe)},
            pass_fds=(pipe,),
        )

    def _count_loss(self, status: int, pause: float) -> None:
        log.error("scheduler.process_lost", process=self.name, status=status, again_seconds=pause)
        with reaching_database(), self._context.sessions.begin() as session:
            incidents.count(session, IncidentKind.PROCESS_LOST, self.name)


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Return how a process has ended; one that still runs is asked to leave."""
    process.terminate()
    try:
        return process.wait(_LEAVING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
