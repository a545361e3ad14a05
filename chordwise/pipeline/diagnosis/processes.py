"""Looking at the processes and what lies between them: the broker, the worker's consumption."""

from __future__ import annotations

from chordwise.embedded import stack
from chordwise.embedded.home import home_at
from chordwise.errors import ConfigurationError
from chordwise.pipeline import broker
from chordwise.pipeline.broker import BrokerReport
from chordwise.pipeline.diagnosis.checks import Check, Verdict
from chordwise.settings import Settings
from chordwise.telemetry import liveness
from chordwise.telemetry.liveness import Sign

_MUCH_MEMORY = 0.7
_MEGABYTE = 1024**2
_PROCESSES = ("worker", "scheduler")


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
    signs = [liveness.last_sign(settings.home, name) for name in _PROCESSES]
    state = stack.find(settings.home)
    running = set(state.children) if state is not None else set()
    missing = [sign.process for sign in signs if sign.process not in running and not sign.is_fresh]
    if missing:
        return Check(
            name="processes",
            verdict=Verdict.WARN,
            finding=f"no {' and no '.join(missing)} on this machine",
            hint="chordwise up, or python -m worker and python -m scheduler.",
        )
    return _judged(settings, signs)


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
