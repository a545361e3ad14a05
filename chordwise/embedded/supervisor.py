"""The process that starts the services of one home, watches them and stops them."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from signal import Signals
from typing import Protocol

import psycopg

from chordwise.embedded import processes, stack_plan
from chordwise.embedded.home import (
    Home,
    Level,
    StackPhase,
    StackState,
    home_at,
    last_state,
    locked,
    write_state,
)
from chordwise.embedded.llama import EmbeddedLlama
from chordwise.embedded.postgres import EmbeddedPostgres
from chordwise.embedded.processes import BackgroundProcess, ProcessIdentity
from chordwise.embedded.stack_plan import StackPlan
from chordwise.embedded.valkey import EmbeddedValkey
from chordwise.errors import ChordwiseError, ConfigurationError, ServiceUnavailableError
from chordwise.settings.environment import SUPERVISOR_PIPE_VARIABLE
from chordwise.telemetry import liveness

LOGGER = logging.getLogger("chordwise.embedded")

FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 10.0
# A child that ran this long did not fail at its start.
_HEALTHY_SECONDS = 30.0
_MAX_DOUBLINGS = 10


class Service(Protocol):
    """A service that can be started, stopped and identified."""

    def start(self) -> None:
        """Start it and wait until it can be used.

        Raises:
            ServiceUnavailableError: It does not start.
        """

    def stop(self) -> bool:
        """Stop it; return whether it ran."""

    def identity(self) -> ProcessIdentity | None:
        """Return its process while it runs."""


class RestartingService:
    """A service that is restarted when it dies, after pauses that double from 0.5 to 10 seconds."""

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

    def check(self) -> ChordwiseError | None:
        """Restart the service if it is dead and its pause is over; return what to report."""
        self.identity = self.service.identity()
        if self.identity is not None:
            return None
        now = self._clock()
        if self._due_at is None:
            pause = self._plan_restart(now)
            return ServiceUnavailableError(f"it exited and restarts in {pause:g} s")
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
        pause = min(FIRST_PAUSE_SECONDS * 2.0**self._failures, MAX_PAUSE_SECONDS)
        self._failures = min(self._failures + 1, _MAX_DOUBLINGS)
        self._due_at = now + pause
        return pause


_GRACE_SECONDS = 30.0


def stop_processes(home: Home) -> bool:
    """Stop the processes of a home without a supervisor; the caller holds its lock.

    Return whether there were any.
    """
    last = last_state(home)
    children = dict(last.children) if last is not None else {}
    stopped = [
        processes.stop(identity, (Signals.SIGTERM, _GRACE_SECONDS))
        for name, identity in reversed(children.items())
        if name not in _SERVERS
    ]
    # The servers have pid files of their own and are found even if no snapshot names them.
    for server in (valkey, postgres):
        with suppress(ConfigurationError):  # it is not installed, so it does not run
            stopped.append(server(home).stop())
    home.state_file.unlink(missing_ok=True)
    home.discard_sockets()
    return any(stopped)


POSTGRES = "postgres"
VALKEY = "valkey"
SCHEDULER = "scheduler"
WORKER = "worker"
WEB = "web"
_SERVERS = (POSTGRES, VALKEY)
"""The services that stay under other settings."""
LLAMA_PREFIX = "llama"
_MIGRATE_SECONDS = 300.0
# On a busy machine, a worker may take longer to start; it is not stopped after this time.
_WORKER_SECONDS = 30.0
_POLL_SECONDS = 0.03


class Children:
    """The processes of the supervisor; later ones need earlier ones and are stopped before them."""

    def __init__(
        self, home: Home, report: Callable[[str], None], is_stopped: Callable[[], bool]
    ) -> None:
        self._home = home
        self._report = report
        self._is_stopped = is_stopped
        self._watched: dict[str, RestartingService] = {}
        self._serves_pages = False  # stays true after the first plan that requests it
        self._reader, self._writer = os.pipe()
        self.database_url: str | None = None
        self.broker_url: str | None = None
        self.level: Level | None = None
        self.plan: StackPlan | None = None

    def apply(self, plan: StackPlan) -> None:
        """Start the missing services of a plan; restart those that run with other settings.

        Raises:
            ConfigurationError: A setting prevents it, or the plan conflicts with the running one.
            ServiceUnavailableError: A service does not start.
        """
        if plan.database_url is None and POSTGRES not in self._watched:
            server = postgres(self._home)
            self._start(POSTGRES, server, "Starting PostgreSQL")
            try:
                self._migrate(plan, server.url())
            except ChordwiseError:
                self.stop(kept=self._watched.keys() - {POSTGRES})
                raise
            self.database_url = server.url()
        if plan.level is Level.ALL:
            self._apply_all(plan)
        else:
            self.level = self.level or Level.DATABASE

    def check(self) -> dict[str, ChordwiseError]:
        """Restart dead services; return what to report."""
        problems = {name: watched.check() for name, watched in self._watched.items()}
        return {name: problem for name, problem in problems.items() if problem is not None}

    def close(self) -> None:
        """Close the pipe that shows the children that this process is alive."""
        os.close(self._writer)
        os.close(self._reader)

    def identities(self) -> dict[str, ProcessIdentity]:
        """Return the running processes by name, as of the last check."""
        identities = {name: watched.identity for name, watched in self._watched.items()}
        return {name: identity for name, identity in identities.items() if identity is not None}

    def _apply_all(self, plan: StackPlan) -> None:
        if self.plan is not None and plan.conflicts_with(self.plan):
            file = self.plan.settings_file
            source = f"of {file}" if file else "of its environment variables"
            advice = (
                f"Add --config {file} to use its settings" if file else "Set the same variables"
            )
            raise ConfigurationError(
                f"The running stack serves the inboxes and schedules {source}; "
                "a restart with the settings of this command would stop that.",
                f"{advice}, use another home with --home, or stop that stack with chordwise down.",
            )
        if plan.broker_url is None and VALKEY not in self._watched:
            server = valkey(self._home)
            self._start(VALKEY, server, "Starting Valkey")
            self.broker_url = server.url()
        if self.plan is None or self.plan.fingerprint != plan.fingerprint:
            self._replace_processes(plan)
        self._serves_pages |= plan.serves_pages
        if self._serves_pages and WEB not in self._watched:
            self._start(WEB, self._process(plan, WEB), "Starting the web server")
        self.level = Level.ALL

    def _migrate(self, plan: StackPlan, database_url: str) -> None:
        self._report("Updating the database schema")
        command, log = plan.commands.migrate, self._home.log("migrate")
        try:
            with log.open("ab") as output:
                outcome = subprocess.run(  # noqa: S603 - the command is of our own making
                    command,
                    env=plan.environment | {"CHORDWISE_DATABASE_URL": database_url},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=_MIGRATE_SECONDS,
                    check=False,
                )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServiceUnavailableError(f"{command[-1]} failed: {error}.") from error
        if outcome.returncode != 0:
            raise ServiceUnavailableError(
                f"“{' '.join(command[-2:])}” failed: {processes.tail(log, 3)}", f"See {log}."
            )

    def _replace_processes(self, plan: StackPlan) -> None:
        self.plan = None
        self.stop(kept=_SERVERS)
        for number, model in enumerate(plan.local_models):
            name = LLAMA_PREFIX if number == 0 else f"{LLAMA_PREFIX}-{number}"
            server = EmbeddedLlama(
                model,
                self._home.run,
                log=self._home.log(name),
                environment=self._environment(plan),
                inherited=(self._reader,),
            )
            self._start(name, server, f"Loading the model {model.file.name}")
        for name in (SCHEDULER, WORKER):
            liveness.forget(self._home.path, name)
        self._start(SCHEDULER, self._process(plan, SCHEDULER), "Starting the scheduler")
        worker = self._process(plan, WORKER)
        self._start(WORKER, worker, "Starting the worker")
        self._await_worker(worker)
        self.plan = plan

    def _await_worker(self, worker: BackgroundProcess) -> None:
        def is_decided() -> bool:
            sign = liveness.last_sign(self._home.path, WORKER)
            return bool(sign.state) or worker.identity() is None or self._is_stopped()

        processes.wait_until(is_decided, _WORKER_SECONDS, _POLL_SECONDS)
        if worker.identity() is None and not self._is_stopped():
            self.stop(kept=_SERVERS)
            what = f"The worker exited at its start: {worker.last_log_lines()}"
            raise ServiceUnavailableError(what, f"See {self._home.log(WORKER)}.")
        sign = liveness.last_sign(self._home.path, WORKER)
        if not sign.is_at_work:
            LOGGER.warning("the worker is not ready yet: %s", sign)
            self._report(f"The worker is not ready yet. {sign}")

    def _process(self, plan: StackPlan, name: str) -> BackgroundProcess:
        programs, environment = plan.commands, self._environment(plan)
        commands = {SCHEDULER: programs.scheduler, WORKER: programs.worker, WEB: programs.web}
        if name == WEB:
            environment["CHORDWISE_EMBEDDED__START"] = "false"
        elif name == WORKER and plan.worker_concurrency is not None:
            environment["CHORDWISE_WORKER__CONCURRENCY"] = str(plan.worker_concurrency)
        return BackgroundProcess(
            commands[name],
            log=self._home.log(name),
            environment=environment,
            inherited=(self._reader,),
            grace_seconds=plan.grace_seconds,
            directory=plan.directory,
        )

    def _environment(self, plan: StackPlan) -> dict[str, str]:
        addresses = {
            "CHORDWISE_DATABASE_URL": plan.database_url or self.database_url,
            "CHORDWISE_BROKER_URL": plan.broker_url or self.broker_url,
            SUPERVISOR_PIPE_VARIABLE: str(self._reader),
        }
        return plan.environment | {name: value for name, value in addresses.items() if value}

    def _start(self, name: str, service: Service, activity: str) -> None:
        self._report(activity)
        watched = RestartingService(service)
        watched.start()
        self._watched[name] = watched

    def stop(self, kept: Collection[str] = ()) -> None:
        """Stop everything that is not kept, the last started first."""
        for name in reversed([name for name in self._watched if name not in kept]):
            self._report(f"Stopping {name}")
            self._watched.pop(name).service.stop()


def postgres(home: Home) -> EmbeddedPostgres:
    """Return the PostgreSQL server of a home, running or not.

    Raises:
        ConfigurationError: Its programs are not installed.
    """
    return EmbeddedPostgres(home.postgres, home.sockets(), log=home.log(POSTGRES))


def valkey(home: Home) -> EmbeddedValkey:
    """Return the Valkey server of a home, running or not.

    Raises:
        ConfigurationError: Its program is not installed.
    """
    return EmbeddedValkey(home.valkey, home.sockets(), log=home.log(VALKEY))


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
        self._children = Children(home, self._report_activity, self._stopped.is_set)
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
        if stop_processes(self._home):
            LOGGER.warning("stopped processes that an earlier supervisor left running")
        with stack_plan.listen(self._home) as listener:
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
        request = stack_plan.next_request(listener)
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
                answer = stack_plan.Message(code=error.code, what=error.what, hint=error.hint)
            else:
                self._idle_seconds = plan.idle_seconds
                self._phase = StackPhase.READY
                answer = stack_plan.Message(state=self._state())
            self._publish()
            if not self._stopped.is_set():
                stack_plan.send(client, answer)
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
            stack_plan.send(self._client, stack_plan.Message(activity=activity))

    def _publish(self) -> None:
        now = self._state()
        if now != self._published:
            write_state(self._home, now)
            self._published = now

    def _state(self) -> StackState:
        plan = self._children.plan
        return StackState(
            supervisor=self._identity,
            in_foreground=not self._leaves_when_idle,
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
