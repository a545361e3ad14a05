"""Looking at the processes and what lies between them: the broker, the worker's consumption."""

from __future__ import annotations

import time
from pathlib import Path

from chordwise.embedded import processes, stack
from chordwise.embedded.home import home_at
from chordwise.embedded.processes import ProcessIdentity
from chordwise.errors import ConfigurationError
from chordwise.pipeline.diagnosis.checks import Check, Verdict
from chordwise.pipeline.runtime import broker
from chordwise.pipeline.runtime.broker import BrokerReport
from chordwise.settings import Settings
from chordwise.telemetry import liveness
from chordwise.telemetry.liveness import Sign

_MUCH_MEMORY = 0.7
_MEGABYTE = 1024**2
_PROCESSES = ("worker", "scheduler")
_FIRST_SIGN_SECONDS = 30.0
_POLL_SECONDS = 0.05


def look_at_broker(settings: Settings) -> Check:
    """See that the broker takes messages, keeps them, and has room for more.

    Raises:
        ConfigurationError: No broker is configured.
        ServiceUnavailableError: The broker is out of reach, or full.
    """
    if settings.broker_url is None:
        raise ConfigurationError("No broker is configured.", "Set CHORDWISE_BROKER_URL.")
    found = broker.report(settings.broker_url)
    broker.require_working(settings.broker_url)
    if found.policy != "noeviction":
        return Check(
            name="broker",
            verdict=Verdict.WARN,
            finding=f"{found.version} drops messages when memory is short ({found.policy})",
            hint="Set maxmemory-policy noeviction; what is lost is only sent again later.",
        )
    memory = _memory(found)
    if found.memory_share > _MUCH_MEMORY:
        return Check(
            name="broker",
            verdict=Verdict.WARN,
            finding=f"{found.version} answers, with {memory}",
            hint="Full, it takes no messages: raise its maxmemory, or let the workers empty it.",
        )
    kept = "keeps" if found.persistent else "loses"
    return Check(
        name="broker",
        finding=f"{found.version} answers, with {memory}; {kept} messages over a restart",
    )


def _memory(found: BrokerReport) -> str:
    used = f"{found.memory_used / _MEGABYTE:.1f} MB"
    if not found.memory_limit:
        return f"{used} in use"
    return f"{used} in use, {found.memory_share:.0%} of its maxmemory"


def look_at_processes(settings: Settings) -> Check:
    """Look for worker and scheduler on this machine; elsewhere they cannot be seen."""
    state = stack.find(settings.home)
    running = state.children if state is not None else {}
    signs = [_sign_of(settings.home, name, running.get(name)) for name in _PROCESSES]
    missing = [sign.process for sign in signs if sign.process not in running and not sign.is_fresh]
    if missing:
        return Check(
            name="processes",
            verdict=Verdict.WARN,
            finding=f"no {' and no '.join(missing)} on this machine",
            hint="chordwise up, or python -m worker and python -m scheduler.",
        )
    return _judged(settings, signs)


def _sign_of(home: Path, name: str, running: ProcessIdentity | None) -> Sign:
    """Return the last sign of a process; one that has just been started gets time for its first.

    The stack is ready when the worker is: its scheduler may be loading still.
    """

    def is_decided() -> bool:
        is_new = running is not None and time.time() - running.created_at < _FIRST_SIGN_SECONDS
        is_silent = not liveness.last_sign(home, name).is_fresh
        return not (is_new and is_silent and processes.is_alive(running))

    processes.wait_until(is_decided, _FIRST_SIGN_SECONDS, _POLL_SECONDS)
    return liveness.last_sign(home, name)


def _judged(settings: Settings, signs: list[Sign]) -> Check:
    finding = " ".join(str(sign) for sign in signs)
    ill = [sign.process for sign in signs if not sign.is_healthy]
    if not ill:
        return Check(name="processes", finding=finding)
    logs = " and ".join(str(home_at(settings.home).log(process)) for process in ill)
    return Check(
        name="processes",
        verdict=Verdict.WARN,
        finding=finding,
        hint=f"If that stays: see {logs}.",
    )
