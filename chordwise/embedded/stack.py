"""The embedded stack for commands: start it, inspect it, run it in the foreground, stop it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from signal import Signals

from pydantic import SecretStr

from chordwise.embedded import processes, stack_plan
from chordwise.embedded.home import (
    Home,
    Level,
    StackState,
    current_state,
    home_at,
    last_state,
    lock_holder,
    locked,
)
from chordwise.embedded.stack_plan import Commands, StackPlan, autostart_fingerprint, plan_for
from chordwise.errors import ChordwiseError, ConfigurationError, ServiceUnavailableError
from chordwise.settings import Settings

_MAX_SUPERVISORS = 3
# How long a command waits for its answer.
_START_TIMEOUT_SECONDS = 240.0
_POLL_SECONDS = 0.03
_FOLLOW_SECONDS = 0.5
# The worker's grace period, and the time that the servers need after it.
_STOP_SECONDS = 120.0


def ensure(
    settings: Settings,
    level: Level,
    *,
    config: Path | None = None,
    on_progress: Callable[[str], None] | None = None,
    commands: Commands | None = None,
) -> Settings:
    """Start the missing services in the background, and wait until they can be used.

    Return the settings with the addresses of the embedded services. A stack that runs with other
    settings gets a new worker and scheduler. `commands` replaces its programs.

    Raises:
        ConfigurationError: A setting prevents the start.
        ServiceUnavailableError: A service does not start.
    """
    if not settings.embedded.start:
        if settings.database_url is None or settings.broker_url is None:
            raise ConfigurationError(
                "embedded.start is false, and database_url or broker_url is not set.",
                "Set CHORDWISE_DATABASE_URL and CHORDWISE_BROKER_URL, or embedded.start = true.",
            )
        return settings
    home = home_at(settings.home)
    if level is Level.DATABASE and settings.database_url is not None:
        return settings
    home.prepare()
    home.touch()
    plan = plan_for(settings, level, config=config, commands=commands)
    state = current_state(home)
    if state is None or not plan.is_met_by(state):
        state = _request_plan(home, plan, on_progress)
    return with_addresses(settings, state)


def with_addresses(settings: Settings, state: StackState) -> Settings:
    """Return the settings with the addresses of the embedded services of a running stack."""
    embedded = {"database_url": state.database_url, "broker_url": state.broker_url}
    addresses = {
        name: SecretStr(address)
        for name, address in embedded.items()
        if address is not None and getattr(settings, name) is None
    }
    return settings.model_copy(update=addresses)


def run_in_foreground(
    settings: Settings,
    *,
    config: Path | None = None,
    on_progress: Callable[[str], None],
    on_ready: Callable[[Settings], None],
    commands: Commands | None = None,
    serves_pages: bool = False,
) -> None:
    """Run the whole stack until a signal arrives; optionally serve the pages.

    It runs in this process, or is what another command has started in the background.

    Raises:
        ConfigurationError: A setting prevents the start.
        ServiceUnavailableError: The stack is already running, or a service does not start.
    """
    from chordwise.embedded.supervisor import Supervisor  # noqa: PLC0415 - commands start without

    plan = plan_for(settings, Level.ALL, config=config, commands=commands)
    plan = plan.model_copy(update={"serves_pages": serves_pages})
    home = home_at(settings.home)
    if lock_holder(home) and not ((state := last_state(home)) and state.in_foreground):
        home.touch()
        state = _request_plan(home, plan, on_progress)
        on_ready(with_addresses(settings, state))
        _follow(home, state.supervisor)
        return
    Supervisor(
        home,
        plan,
        on_progress=on_progress,
        on_ready=lambda state: on_ready(with_addresses(settings, state)),
    ).run()


def _follow(home: Home, supervisor: processes.ProcessIdentity) -> None:
    """Keep a stack in use until a signal arrives, and then stop it; return if it was stopped.

    Raises:
        ServiceUnavailableError: Its supervisor was killed, which leaves its snapshot.
    """
    is_stopped = threading.Event()
    signals = (Signals.SIGTERM, Signals.SIGINT, Signals.SIGHUP)
    with processes.handle_signals(signals, lambda *_: is_stopped.set()):
        while not is_stopped.wait(_FOLLOW_SECONDS):
            home.touch()
            if processes.is_alive(supervisor):
                continue
            if (state := last_state(home)) is None or state.supervisor != supervisor:
                return
            raise _failure(home, "The stack was killed")
        stop(home.path)


def find(home: Path) -> StackState | None:
    """Return the state of the running stack; `None` if none runs."""
    return current_state(home_at(home))


def is_alone(settings: Settings) -> bool:
    """Return whether no worker outside the stack here can work: the broker is embedded."""
    if settings.broker_url is None:
        return settings.embedded.start
    state = find(settings.home)
    return state is not None and state.broker_url == settings.broker_url.get_secret_value()


def is_watching(settings: Settings) -> bool | None:
    """Return whether this stack runs inboxes and schedules; `None` if other processes do."""
    if not settings.embedded.start:
        return None
    state = find(settings.home)
    return (
        state is not None
        and state.level is Level.ALL
        and state.autostart_fingerprint == autostart_fingerprint(settings)
    )


def is_watching_for_others(settings: Settings) -> bool:
    """Return whether the stack here watches folders or runs schedules of other settings."""
    state = find(settings.home) if settings.embedded.start else None
    return state is not None and state.autostart_fingerprint not in {
        "",
        autostart_fingerprint(settings),
    }


def touch_last_used(home: Path) -> None:
    """Record that the stack is in use, so that it does not stop as idle."""
    place = home_at(home)
    if place.run.is_dir():
        place.touch()


def stop(home: Path) -> bool:
    """Stop the stack of a home and processes that a killed one left; return whether any ran.

    Raises:
        ServiceUnavailableError: Another command is starting the stack.
    """
    place = home_at(home)
    if not place.run.is_dir():
        return False
    from chordwise.embedded import supervisor  # noqa: PLC0415 - commands start without

    was_running = processes.stop(lock_holder(place), (Signals.SIGTERM, _STOP_SECONDS))
    with locked(place):
        return supervisor.stop_processes(place) or was_running


def _request_plan(
    home: Home, plan: StackPlan, on_progress: Callable[[str], None] | None
) -> StackState:
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    started: list[processes.ProcessIdentity | None] = []
    while time.monotonic() < deadline:
        state = current_state(home)
        last: stack_plan.Message | None = None
        for last in stack_plan.request(state.control_socket, plan, deadline) if state else ():
            if last.activity and on_progress is not None:
                on_progress(last.activity)
        if last is not None and last.state is not None:
            return last.state
        if last is not None and (last.code or time.monotonic() < deadline):
            raise _refusal(home, last)
        if not lock_holder(home) and not any(map(processes.is_alive, started)):
            if len(started) == _MAX_SUPERVISORS:
                raise _refusal(home, stack_plan.Message())
            command = [sys.executable, "-P", "-m", "chordwise.embedded.supervisor", str(home.path)]
            log, where = home.log("stack"), plan.directory
            supervisor = processes.launch(
                command, log=log, environment=plan.environment, directory=where
            )
            started.append(supervisor)
        processes.wait_until(lambda: False, _POLL_SECONDS)
    raise _failure(home, "The stack is not ready in time")


def _refusal(home: Home, last: stack_plan.Message) -> ChordwiseError:
    if not last.code:
        return _failure(home, "The stack exited while it was starting")
    is_configuration = last.code == ConfigurationError.code
    kind = ConfigurationError if is_configuration else ServiceUnavailableError
    return kind(last.what, last.hint)


def _failure(home: Home, what: str) -> ServiceUnavailableError:
    log = home.log("stack")
    return ServiceUnavailableError(f"{what}: {processes.tail(log, 3)}", f"See {log}.")
