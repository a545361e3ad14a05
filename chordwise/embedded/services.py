"""The children of a supervisor, each behind the same three questions."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import Signals
from typing import Protocol

from chordwise.embedded import processes
from chordwise.embedded.processes import ProcessIdentity
from chordwise.errors import ChordwiseError, ServiceUnavailableError

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
# A child that lived this long did not die of its start.
_HEALTHY_SECONDS = 30.0
_MOST_DOUBLINGS = 10
_LAST_WORDS = 3


class Service(Protocol):
    """Something that can be started, stopped and looked for."""

    def start(self) -> None:
        """Start it and wait until it can be used.

        Raises:
            ServiceUnavailableError: It does not start.
        """
        ...

    def stop(self) -> bool:
        """Stop it; return whether it ran."""
        ...

    def identity(self) -> ProcessIdentity | None:
        """Return its process while it runs."""
        ...


class BackgroundProcess:
    """A process of ours that needs no more than to be there; it gets `grace_seconds` to leave."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        inherited: Sequence[int],
        grace_seconds: float,
        directory: Path | None = None,
    ) -> None:
        self._command = command
        self._directory = directory
        self._log = log
        self._environment = environment
        self._inherited = inherited
        self._grace_seconds = grace_seconds
        self._identity: ProcessIdentity | None = None
        self._log_begins = 0

    def start(self) -> None:
        """Start the process; what it does from then on stands in its log.

        Raises:
            ServiceUnavailableError: The program cannot be started.
        """
        self._log_begins = processes.size_of(self._log)
        self._identity = processes.launch(
            self._command,
            log=self._log,
            environment=self._environment,
            inherited=self._inherited,
            directory=self._directory,
        )

    def stop(self) -> bool:
        """Ask the process to leave, and kill it after its grace; return whether it ran."""
        return processes.stop(self._identity, (Signals.SIGTERM, self._grace_seconds))

    def identity(self) -> ProcessIdentity | None:
        """Return the process while it runs."""
        return self._identity if processes.is_alive(self._identity) else None

    def last_words(self) -> str:
        """Return the last lines that it wrote into its log since it was started."""
        return processes.tail(self._log, _LAST_WORDS, self._log_begins)


class Watched:
    """A service that comes back when it dies, after pauses that double from 0.5 to 10 seconds.

    `identity` is its process as it was last looked for, at a start or by `tend`.
    """

    def __init__(self, service: Service, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.service = service
        self._clock = clock
        self._failures = 0
        self._started_at = clock()
        self._due_at: float | None = None
        self.identity: ProcessIdentity | None = None

    def start(self) -> None:
        """Start the service.

        Raises:
            ServiceUnavailableError: It does not start.
        """
        self._due_at = None
        self._started_at = self._clock()
        self.service.start()
        self.identity = self.service.identity()

    def tend(self) -> ChordwiseError | None:
        """Restart the service if it is dead and its pause is over.

        Returns what to report: that it died, or why it does not start again.
        """
        self.identity = self.service.identity()
        if self.identity is not None:
            return None
        now = self._clock()
        if self._due_at is None:
            pause = self._plan_restart(now)
            return ServiceUnavailableError(f"it ended; it starts again in {pause:g} s")
        if now < self._due_at:
            return None
        try:
            self.start()
        except ChordwiseError as error:
            self._plan_restart(self._clock())
            return error
        return None

    def _plan_restart(self, now: float) -> float:
        if now - self._started_at > _HEALTHY_SECONDS:
            self._failures = 0
        pause = min(FIRST_PAUSE_SECONDS * 2.0**self._failures, LONGEST_PAUSE_SECONDS)
        self._failures = min(self._failures + 1, _MOST_DOUBLINGS)
        self._due_at = now + pause
        return pause


def run_to_end(
    command: Sequence[str], *, environment: Mapping[str, str], log: Path, seconds: float
) -> None:
    """Run a command of ours and wait for it.

    Raises:
        ServiceUnavailableError: It failed, or took too long.
    """
    try:
        with log.open("ab") as output:
            outcome = subprocess.run(  # noqa: S603 - the commands are of our own making
                list(command),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceUnavailableError(f"{command[-1]} failed: {error}.") from error
    if outcome.returncode != 0:
        raise ServiceUnavailableError(
            f"“{' '.join(command[-2:])}” failed: {processes.tail(log, 3)}", f"See {log}."
        )
