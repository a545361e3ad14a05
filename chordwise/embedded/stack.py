"""The embedded stack as commands see it: make sure of it, look at it, hold it, stop it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

from pydantic import SecretStr

from chordwise.embedded import exchange, idleness, processes, services
from chordwise.embedded.home import (
    Home,
    Level,
    StackState,
    current_state,
    home_at,
    lock_holder,
    locked,
)
from chordwise.embedded.plan import Commands, Plan, autostart_fingerprint, plan_for
from chordwise.embedded.processes import ProcessIdentity
from chordwise.embedded.supervisor import Supervisor
from chordwise.errors import ConfigurationError, ServiceUnavailableError
from chordwise.settings import Settings

__all__ = [
    "Commands",
    "Level",
    "Services",
    "StackState",
    "ensure",
    "find",
    "hold",
    "keeps_watch",
    "stop",
    "touch_last_used",
    "watches_for_others",
]

_MAX_SUPERVISORS = 3
_POLL_SECONDS = 0.03
# A worker's grace, and what the servers need after it.
_STOP_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Where database and broker are, embedded or the user's own.

    `broker_url` is `None` at the level `database` when the broker is embedded. Celery takes it as
    result backend too.
    """

    database_url: SecretStr
    broker_url: SecretStr | None
    result_url: SecretStr | None


def ensure(
    settings: Settings,
    level: Level,
    *,
    config: Path | None = None,
    on_progress: Callable[[str], None] | None = None,
    commands: Commands | None = None,
) -> Services:
    """Start what is missing in the background and wait until it can be used.

    A stack that runs under other settings gets a new worker and scheduler. `commands` replaces
    the programs that run beside the services.

    Raises:
        ConfigurationError: A setting stands in the way.
        ServiceUnavailableError: A service does not start.
    """
    if not settings.embedded.start:
        return _services_of_others(settings)
    home = home_at(settings.home)
    if level is Level.DATABASE and not settings.embedded_database:
        return _services(settings, None)
    home.prepare()
    idleness.touch(home)
    plan = plan_for(settings, level, config=config, commands=commands)
    found = current_state(home)
    if found is None or not plan.is_met_by(found):
        found = _StartRequest(home, plan, on_progress).wait()
    return _services(settings, found)


def hold(
    settings: Settings,
    *,
    config: Path | None = None,
    on_progress: Callable[[str], None],
    on_ready: Callable[[Services], None],
    commands: Commands | None = None,
) -> None:
    """Run the whole stack in this process until a signal comes.

    Raises:
        ConfigurationError: A setting stands in the way.
        ServiceUnavailableError: The stack is up already, or a service does not start.
    """
    plan = plan_for(settings, Level.ALL, config=config, commands=commands)
    Supervisor(
        home_at(settings.home),
        plan,
        on_progress=on_progress,
        on_ready=lambda found: on_ready(_services(settings, found)),
    ).run()


def find(home: Path) -> StackState | None:
    """Return what a running stack says about itself; `None` where none runs."""
    return current_state(home_at(home))


def keeps_watch(settings: Settings) -> bool | None:
    """Tell whether the stack here watches the folders and keeps the schedules of these settings.

    `None` where processes that others start do that.
    """
    if not settings.embedded.start:
        return None
    found = find(settings.home)
    return (
        found is not None
        and found.level is Level.ALL
        and found.autostart_fingerprint == autostart_fingerprint(settings)
    )


def watches_for_others(settings: Settings) -> bool:
    """Tell whether the stack here watches folders or keeps schedules of other settings."""
    found = find(settings.home) if settings.embedded.start else None
    return found is not None and found.autostart_fingerprint not in {
        "",
        autostart_fingerprint(settings),
    }


def touch_last_used(home: Path) -> None:
    """Keep a background stack from leaving for another while."""
    place = home_at(home)
    if place.run.is_dir():
        idleness.touch(place)


def stop(home: Path) -> bool:
    """Stop the stack of a home, and what a killed one left; return whether there was any.

    Raises:
        ServiceUnavailableError: Another command starts the stack at the same moment.
    """
    place = home_at(home)
    if not place.run.is_dir():
        return False
    was_up = processes.stop(lock_holder(place), (Signals.SIGTERM, _STOP_SECONDS))
    with locked(place):
        return services.stop(place) or was_up


class _StartRequest:
    """One request to a supervisor that may have to be started first, or again."""

    def __init__(self, home: Home, plan: Plan, on_progress: Callable[[str], None] | None) -> None:
        self._home = home
        self._on_progress = on_progress
        self._plan = plan
        self._supervisor: ProcessIdentity | None = None
        self._started = 0
        self._heard = ""

    def wait(self) -> StackState:
        """Wait for the reply and return the state of the stack after it.

        Raises:
            ConfigurationError: A setting stands in the way.
            ServiceUnavailableError: A service does not start.
        """
        name = exchange.ask(self._home, self._plan)
        try:
            found = self._wait(name)
        finally:
            exchange.withdraw(self._home, name)
        if found is None:
            raise ServiceUnavailableError("The stack left while it was needed.", "Try again.")
        return found

    def _wait(self, name: str) -> StackState | None:
        deadline = time.monotonic() + exchange.PATIENCE_SECONDS
        while time.monotonic() < deadline:
            processes.wait_until(lambda: self._has_news(name), _POLL_SECONDS, _POLL_SECONDS)
            found = current_state(self._home)
            self._report(found)
            reply = exchange.take_reply(self._home, name)
            if reply is not None:
                reply.raise_for_refusal()
                return current_state(self._home)
            self._keep_alive(name)
        raise self._failure("The stack does not get ready in time")

    def _has_news(self, name: str) -> bool:
        return (self._home.replies / name).exists()

    def _report(self, found: StackState | None) -> None:
        activity = found.activity if found else ""
        if activity and activity != self._heard and self._on_progress is not None:
            self._on_progress(activity)
        self._heard = activity

    def _keep_alive(self, name: str) -> None:
        if lock_holder(self._home) or processes.is_alive(self._supervisor):
            return
        # The supervisor that took the request is gone, perhaps after its reply.
        if self._has_news(name):
            return
        if not exchange.is_waiting(self._home, name) or self._started >= _MAX_SUPERVISORS:
            raise self._failure("The stack ended while it was starting")
        self._started += 1
        self._supervisor = _start_supervisor(self._home, self._plan)

    def _failure(self, what: str) -> ServiceUnavailableError:
        log = self._home.log("stack")
        return ServiceUnavailableError(f"{what}: {processes.tail(log, 3)}", f"See {log}.")


def _start_supervisor(home: Home, plan: Plan) -> ProcessIdentity | None:
    command = [sys.executable, "-P", "-m", "chordwise.embedded.supervisor", str(home.path)]
    return processes.launch(
        command, log=home.log("stack"), environment=plan.environment, directory=plan.directory
    )


def _services(settings: Settings, found: StackState | None) -> Services:
    database = settings.database_url or _secret(found.database_url if found else None)
    broker = settings.broker_url or _secret(found.broker_url if found else None)
    if database is None:
        raise ServiceUnavailableError("The embedded database is not there.", "Try again.")
    return Services(database_url=database, broker_url=broker, result_url=broker)


def _services_of_others(settings: Settings) -> Services:
    if settings.database_url is None or settings.broker_url is None:
        raise ConfigurationError(
            "embedded.start is false, and database_url or broker_url is not set.",
            "Set CHORDWISE_DATABASE_URL and CHORDWISE_BROKER_URL, or embedded.start = true.",
        )
    return _services(settings, None)


def _secret(value: str | None) -> SecretStr | None:
    return None if value is None else SecretStr(value)
