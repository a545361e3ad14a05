"""The services of one stack: which run, in which order, and with what environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

from chordwise.embedded import processes, services
from chordwise.embedded.home import Home
from chordwise.embedded.llama import EmbeddedLlama
from chordwise.embedded.plan import Plan
from chordwise.embedded.postgres import EmbeddedPostgres
from chordwise.embedded.processes import ProcessIdentity
from chordwise.embedded.services import BackgroundProcess, Service, Watched
from chordwise.embedded.state import Level
from chordwise.embedded.valkey import EmbeddedValkey
from chordwise.errors import ChordwiseError, ConfigurationError, ServiceUnavailableError
from chordwise.settings.environment import SUPERVISOR_PIPE_VARIABLE
from chordwise.telemetry import liveness

LOGGER = logging.getLogger("chordwise.embedded")

POSTGRES = "postgres"
VALKEY = "valkey"
SCHEDULER = "scheduler"
WORKER = "worker"
LLAMA_PREFIX = "llama"

_MIGRATE_SECONDS = 300.0
# A worker that has not begun by then may be on a machine that is very busy: it is not given up.
_WORKER_SECONDS = 30.0
_POLL_SECONDS = 0.03


class Children:
    """What the supervisor runs; later ones need the earlier ones, so they stop in reverse order.

    `tell` hears what is being done, in words for the user; `is_stopped` says when nobody needs
    them any more, and ends a wait.
    """

    def __init__(
        self, home: Home, tell: Callable[[str], None], is_stopped: Callable[[], bool]
    ) -> None:
        self._home = home
        self._tell = tell
        self._is_stopped = is_stopped
        self._watched: dict[str, Watched] = {}
        self._reader, self._writer = os.pipe()
        self.database_url: str | None = None
        self.broker_url: str | None = None
        self.level: Level | None = None
        self.plan: Plan | None = None

    def apply(self, plan: Plan) -> None:
        """Start what a plan asks for and is not there; what runs beyond it goes on.

        A worker consumes afterwards, or waits for servers that are not ours.

        Raises:
            ConfigurationError: A setting stands in the way.
            ServiceUnavailableError: A service does not start.
        """
        if plan.is_database_embedded and POSTGRES not in self._watched:
            self._start_postgres(plan)
        if plan.level is Level.ALL:
            self._apply_all(plan)
        else:
            self.level = self.level or Level.DATABASE

    def tend(self) -> dict[str, ChordwiseError]:
        """Restart what died; return what there is to report."""
        problems = {name: watched.tend() for name, watched in self._watched.items()}
        return {name: problem for name, problem in problems.items() if problem is not None}

    def stop_all(self) -> None:
        """Stop everything, the last started first."""
        self._stop(tuple(self._watched))

    def close(self) -> None:
        """Give the pipe back by which children know that we are there."""
        os.close(self._writer)
        os.close(self._reader)

    def identities(self) -> dict[str, ProcessIdentity]:
        """Return the processes that run, by name, as they were last looked for."""
        found = {name: watched.identity for name, watched in self._watched.items()}
        return {name: identity for name, identity in found.items() if identity is not None}

    def effective_database_url(self) -> str | None:
        """Return the database that the worker uses, embedded or not."""
        return (self.plan.database_url if self.plan else None) or self.database_url

    def _apply_all(self, plan: Plan) -> None:
        if self.plan is not None and plan.would_end(self.plan):
            raise _would_end(self.plan)
        if plan.is_broker_embedded and VALKEY not in self._watched:
            self._start_valkey()
        if self.plan is None or self.plan.fingerprint != plan.fingerprint:
            self._replace_processes(plan)
        self.level = Level.ALL

    def _start_postgres(self, plan: Plan) -> None:
        server = postgres(self._home)
        self._start(POSTGRES, server, "Starting PostgreSQL")
        try:
            self._migrate(plan, server.url())
        except ChordwiseError:
            self._stop([POSTGRES])
            raise
        self.database_url = server.url()

    def _migrate(self, plan: Plan, database_url: str) -> None:
        self._tell("Bringing the tables up to date")
        environment = plan.environment | {"CHORDWISE_DATABASE_URL": database_url}
        services.run_to_end(
            plan.commands.migrate,
            environment=environment,
            log=self._home.log("migrate"),
            seconds=_MIGRATE_SECONDS,
        )

    def _start_valkey(self) -> None:
        server = valkey(self._home)
        self._start(VALKEY, server, "Starting Valkey")
        self.broker_url = server.url()

    def _replace_processes(self, plan: Plan) -> None:
        """Stop the processes that run under other settings, and start them under the plan's."""
        self.plan = None
        self._stop([name for name in self._watched if name not in (POSTGRES, VALKEY)])
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
        """Wait until the worker consumes, or says for whom it waits; not for ever.

        Raises:
            ServiceUnavailableError: It has ended; everything that needs it is stopped.
        """

        def is_decided() -> bool:
            sign = liveness.last_sign(self._home.path, WORKER)
            return bool(sign.state) or worker.identity() is None or self._is_stopped()

        processes.wait_until(is_decided, _WORKER_SECONDS, _POLL_SECONDS)
        if worker.identity() is None and not self._is_stopped():
            self._stop([name for name in self._watched if name not in (POSTGRES, VALKEY)])
            what = f"The worker ended as it started: {worker.last_words()}"
            raise ServiceUnavailableError(what, f"See {self._home.log(WORKER)}.")
        sign = liveness.last_sign(self._home.path, WORKER)
        if not sign.is_at_work:
            LOGGER.warning("the worker does not consume yet: %s", sign)
            self._tell(f"The worker does not consume yet. {sign}")

    def _process(self, plan: Plan, name: str) -> BackgroundProcess:
        commands = {SCHEDULER: plan.commands.scheduler, WORKER: plan.commands.worker}
        return BackgroundProcess(
            commands[name],
            log=self._home.log(name),
            environment=self._environment(plan) | _concurrency(plan, name),
            inherited=(self._reader,),
            grace_seconds=plan.grace_seconds,
            directory=plan.directory,
        )

    def _environment(self, plan: Plan) -> dict[str, str]:
        addresses = {
            "CHORDWISE_DATABASE_URL": plan.database_url or self.database_url,
            "CHORDWISE_BROKER_URL": plan.broker_url or self.broker_url,
            SUPERVISOR_PIPE_VARIABLE: str(self._reader),
        }
        return plan.environment | {name: value for name, value in addresses.items() if value}

    def _start(self, name: str, service: Service, activity: str) -> None:
        self._tell(activity)
        watched = Watched(service)
        watched.start()
        self._watched[name] = watched

    def _stop(self, names: Sequence[str]) -> None:
        for name in reversed(names):
            self._tell(f"Stopping {name}")
            self._watched.pop(name).service.stop()


def _concurrency(plan: Plan, name: str) -> dict[str, str]:
    """Return the variable by which a worker takes no more chunks than local models have slots."""
    if name != WORKER or plan.worker_concurrency is None:
        return {}
    return {"CHORDWISE_WORKER__CONCURRENCY": str(plan.worker_concurrency)}


def _would_end(running: Plan) -> ConfigurationError:
    file = running.settings_file
    of_them = f"of {file}" if file else "that its environment named"
    same = f"Add --config {file} to work under those settings" if file else "Set the same variables"
    return ConfigurationError(
        f"The stack that runs here watches the inboxes and keeps the schedules {of_them}; "
        "under the settings of this command it would not.",
        f"{same}, take another home with --home, or end that stack with chordwise down.",
    )


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
