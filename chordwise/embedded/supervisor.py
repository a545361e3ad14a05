"""The process that starts the services of one home, watches them and stops them."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from chordwise.embedded import control, processes, services
from chordwise.embedded.home import (
    Home,
    Level,
    StackPhase,
    StackState,
    home_at,
    locked,
    write_state,
)
from chordwise.embedded.stack_plan import StackPlan
from chordwise.errors import ChordwiseError, ConfigurationError, ServiceUnavailableError

LOGGER = logging.getLogger("chordwise.embedded")

_CHECK_SECONDS = 0.5
_IDLE_CHECK_SECONDS = 2.0
# How long a supervisor waits for the first request.
_IDLE_SECONDS = 10.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_OPEN_WORK = """
SELECT EXISTS (SELECT 1 FROM jobs WHERE status IN ('queued', 'running', 'waiting', 'synthesizing'))
    OR EXISTS (SELECT 1 FROM deliveries WHERE status = 'pending')
    OR EXISTS (SELECT 1 FROM schedules WHERE enabled)
    OR EXISTS (SELECT 1 FROM schedule_runs WHERE status IN ('due', 'running', 'waiting'))
"""


class Supervisor:
    """One stack: holds the lock of its home while it runs.

    Without an initial `plan`, the first request has it.
    """

    def __init__(
        self,
        home: Home,
        plan: StackPlan | None = None,
        *,
        leaves_when_idle: bool = False,
        on_progress: Callable[[str], None] = lambda _activity: None,
        on_ready: Callable[[StackState], None] = lambda _state: None,
    ) -> None:
        self._home = home
        self._plan = plan
        self._leaves_when_idle = leaves_when_idle
        self._on_progress = on_progress
        self._on_ready = on_ready
        self._stopped = threading.Event()
        self._phase = StackPhase.STARTING
        self._control_socket = Path()
        self._client: socket.socket | None = None
        self._children = services.Children(home, self._report_activity, self._stopped.is_set)
        self._idle_seconds = plan.idle_seconds if plan else _IDLE_SECONDS
        self._idle_check_at = 0.0
        self._check_at = 0.0
        self._published: StackState | None = None
        self._identity = processes.own_identity()

    def request_stop(self) -> None:
        """Make `run` return; safe from signal handlers and from other threads."""
        self._stopped.set()

    def run(self) -> None:
        """Run the stack until a signal, `request_stop`, or idleness.

        Raises:
            ConfigurationError: A setting contradicts the plan.
            ServiceUnavailableError: The stack is already running, or a service does not start.
        """
        self._home.prepare()
        try:
            with (
                locked(self._home),
                processes.handle_signals(_SIGNALS, lambda *_: self.request_stop()),
            ):
                self._work()
        finally:
            self._children.close()

    def _work(self) -> None:
        if services.stop(self._home):
            LOGGER.warning("stopped processes that an earlier supervisor left running")
        with control.listen(self._home) as listener:
            try:
                self._control_socket = Path(listener.getsockname())
                self._home.touch()
                if self._plan is not None:
                    self._children.apply(self._plan)
                    self._phase = StackPhase.READY
                self._publish()
                self._on_ready(self._state())
                while not self._stopped.is_set():
                    self._tick(listener)
            finally:
                self._phase = StackPhase.LEAVING
                self._report_activity("Stopping")
                self._children.stop()
                self._home.state_file.unlink(missing_ok=True)
                self._home.discard_sockets()

    def _tick(self, listener: socket.socket) -> None:
        request = control.next_request(listener)
        if request is not None:
            self._serve(*request)
        if time.monotonic() < self._check_at:
            return
        self._check_at = time.monotonic() + _CHECK_SECONDS
        for name, problem in self._children.check().items():
            LOGGER.warning("%s: %s", name, problem)
        for log in self._home.logs.glob("*.log"):
            processes.rotate(log)
        self._publish()
        if self._leaves_when_idle and self._is_idle():
            self._retire()

    def _serve(self, plan: StackPlan, client: socket.socket) -> None:
        with client as self._client:
            try:
                self._children.apply(plan)
            except (ConfigurationError, ServiceUnavailableError) as error:
                LOGGER.error("%s %s", error.what, error.hint)  # noqa: TRY400 - the message suffices
                answer = control.Message(code=error.code, what=error.what, hint=error.hint)
            else:
                self._idle_seconds = plan.idle_seconds
                self._phase = StackPhase.READY
                answer = control.Message(state=self._state())
            self._publish()
            if not self._stopped.is_set():
                control.send(client, answer)
        self._client = None
        if not self._children.level:
            self.request_stop()  # the first request was refused, so no service runs

    def _is_idle(self) -> bool:
        now = time.monotonic()
        if now < self._idle_check_at:
            return False
        self._idle_check_at = now + min(_IDLE_CHECK_SECONDS, self._idle_seconds / 4)
        plan = self._children.plan
        if (plan and plan.stays) or self._home.unused_seconds() < self._idle_seconds:
            return False
        database_url = (plan and plan.database_url) or self._children.database_url
        if self._children.level is not Level.ALL or database_url is None:
            return True  # without a worker, open work never ends
        return not has_open_work(database_url)

    def _retire(self) -> None:
        # Publish the phase, then check the last use again: a command records its use before it
        # reads the phase, so at least one of the two notices the other.
        self._phase = StackPhase.LEAVING
        self._publish()
        if self._home.unused_seconds() < self._idle_seconds:
            self._phase = StackPhase.READY
            self._publish()
            return
        LOGGER.info("stopping: the stack has been idle for %g s", self._idle_seconds)
        self.request_stop()

    def _report_activity(self, activity: str) -> None:
        self._publish()
        LOGGER.info(activity)
        self._on_progress(activity)
        if self._client is not None:
            control.send(self._client, control.Message(activity=activity))

    def _publish(self) -> None:
        now = self._state()
        if now != self._published:
            write_state(self._home, now)
            self._published = now

    def _state(self) -> StackState:
        plan = self._children.plan
        return StackState(
            supervisor=self._identity,
            children=self._children.identities(),
            phase=self._phase,
            level=self._children.level or Level.DATABASE,
            fingerprint=plan.fingerprint if plan else "",
            autostart_fingerprint=plan.autostart_fingerprint if plan else "",
            control_socket=self._control_socket,
            database_url=self._children.database_url,
            broker_url=self._children.broker_url,
        )


def has_open_work(database_url: str) -> bool:
    """Return whether work is unfinished, or schedules exist; true without a reachable database."""
    address = database_url.replace("postgresql+psycopg://", "postgresql://", 1)
    try:
        with psycopg.connect(address, connect_timeout=5) as connection:
            row = connection.execute(_OPEN_WORK).fetchone()
    except psycopg.errors.UndefinedTable:
        return False
    except psycopg.Error:
        return True
    return row is None or bool(row[0])


def main(arguments: list[str]) -> None:
    """Run the background stack of a home; exit with an error code if it cannot be run."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        Supervisor(home_at(Path(arguments[0])), leaves_when_idle=True).run()
    except ChordwiseError as error:
        LOGGER.error("%s %s", error.what, error.hint)  # noqa: TRY400 - as above
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(sys.argv[1:])
