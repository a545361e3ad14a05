"""A child process of a scheduler or worker, started and watched by the first process.

If it ends, the first process continues, counts the end, and starts it again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Thread
from types import MappingProxyType

import structlog

from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.runtime.context import Context
from chordwise.settings.environment import SUPERVISOR_PIPE_VARIABLE, child_environment
from chordwise.storage import incidents
from chordwise.storage.incidents import IncidentKind

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 30.0
_LEAVING_SECONDS = 12.0
_POLL_SECONDS = 0.5


class ChildProcess(Thread):
    """Runs a module on demand until it is stopped; `module` is its name with arguments.

    After a stop it is killed after `leaving_seconds`. `environment` is added to its own.
    """

    def __init__(
        self,
        context: Context,
        module: Sequence[str],
        stop: Event,
        *,
        is_wanted: Callable[[], bool] = lambda: True,
        environment: Mapping[str, str] = MappingProxyType({}),
        leaving_seconds: float = _LEAVING_SECONDS,
    ) -> None:
        super().__init__(name=module[-1], daemon=True)
        self._context = context
        self._module = tuple(module)
        self._is_wanted = is_wanted
        self._stop_event = stop
        self._environment = environment
        self._leaving_seconds = leaving_seconds
        self._pause = _FIRST_PAUSE_SECONDS

    def run(self) -> None:
        """Start the process, wait for its end, and start it again."""
        while not self._stop_event.is_set():
            pause = _LOOK_SECONDS
            try:
                if self._is_wanted():
                    pause = self._live()
            except ServiceUnavailableError as error:
                log.warning("process.postponed", process=self.name, reason=error.what)
            except Exception:  # the thread has to outlive a defect
                log.exception("process.defect", process=self.name)
            self._stop_event.wait(pause)

    def wait(self) -> None:
        """Wait until the process has ended after a stop."""
        self.join(self._leaving_seconds + _LOOK_SECONDS)

    def _live(self) -> float:
        """Start the process, wait for its end, and return the delay before the next start."""
        reading, writing = os.pipe()
        begun_at = time.monotonic()
        try:
            environment = child_environment(self._context.settings.home)
            process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [sys.executable, "-P", "-m", *self._module],
                stdin=subprocess.DEVNULL,
                env={**environment, **self._environment, SUPERVISOR_PIPE_VARIABLE: str(reading)},
                pass_fds=(reading,),
            )
            while process.poll() is None and not self._stop_event.wait(_POLL_SECONDS):
                continue
            status = self._ended(process)
        finally:
            os.close(reading)
            os.close(writing)
        if status == 0 or self._stop_event.is_set():
            self._pause = _FIRST_PAUSE_SECONDS
            return _FIRST_PAUSE_SECONDS
        if time.monotonic() - begun_at > _MAX_PAUSE_SECONDS:
            self._pause = _FIRST_PAUSE_SECONDS  # it did not fail at its start
        pause, self._pause = self._pause, min(2 * self._pause, _MAX_PAUSE_SECONDS)
        log.error("process.lost", process=self.name, status=status, again_seconds=pause)
        with self._context.database.write() as session:
            incidents.count(session, IncidentKind.PROCESS_LOST, self.name)
        return pause

    def _ended(self, process: subprocess.Popen[bytes]) -> int:
        """Return how a process has ended; stop it if it still runs."""
        process.terminate()
        try:
            return process.wait(self._leaving_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
