"""Tests of restarting embedded services, reusing a stack, and counting cores."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import SecretStr

from chordwise.embedded import llama
from chordwise.embedded.home import Level, StackPhase, StackState, fits_socket
from chordwise.embedded.processes import ProcessIdentity
from chordwise.embedded.stack_plan import StackPlan, fingerprint
from chordwise.embedded.supervisor import RestartingService
from chordwise.errors import ServiceUnavailableError
from chordwise.settings import EmbeddedSettings, ModelSettings, Settings
from tests.fakes.clocks import SleptClock

PROCESS = ProcessIdentity(pid=1, start="")


class FragileService:
    """A service that dies when the test says so, and counts its starts."""

    def __init__(self) -> None:
        self.starts = 0
        self.is_alive = False
        self.is_broken = False

    def start(self) -> None:
        self.starts += 1
        if self.is_broken:
            raise ServiceUnavailableError("It does not start.")
        self.is_alive = True

    def stop(self) -> bool:
        was_alive, self.is_alive = self.is_alive, False
        return was_alive

    def identity(self) -> ProcessIdentity | None:
        return PROCESS if self.is_alive else None


@pytest.fixture
def service() -> FragileService:
    return FragileService()


@pytest.fixture
def clock() -> SleptClock:
    return SleptClock()


def test_a_dead_service_is_restarted_after_half_a_second(
    service: FragileService, clock: SleptClock
) -> None:
    """A long uptime resets the delay."""
    watched = RestartingService(service, clock=clock)
    watched.start()
    assert (watched.check(), service.starts) == (None, 1)
    service.is_alive = False

    assert str(watched.check()) == "it exited and restarts in 0.5 s"
    clock.now += 0.4
    assert (watched.check(), service.starts) == (None, 1)
    clock.now += 0.2
    watched.check()
    assert service.starts == 2
    for _ in range(2):
        service.is_alive = False
        watched.check()
        clock.now += 10
        watched.check()
    clock.now += 60
    service.is_alive = False
    assert str(watched.check()) == "it exited and restarts in 0.5 s"


def test_restart_delays_double_to_ten_seconds(service: FragileService, clock: SleptClock) -> None:
    service.is_broken = True
    watched = RestartingService(service, clock=clock)
    watched.check()
    tried_at = []

    for _ in range(600):
        clock.now += 0.1
        starts = service.starts
        watched.check()
        if service.starts > starts:
            tried_at.append(clock.now)

    pauses = [round(later - earlier) for earlier, later in pairwise(tried_at)]
    assert pauses == [1, 2, 4, 8, 10, 10, 10, 10]


def test_a_fingerprint_distinguishes_keys() -> None:
    plain = Settings(models={"a": ModelSettings(provider="openai", api_key=SecretStr("one"))})
    other = Settings(models={"a": ModelSettings(provider="openai", api_key=SecretStr("two"))})
    patient = plain.model_copy(update={"embedded": EmbeddedSettings(idle_minutes=99)})

    assert fingerprint(plain) == fingerprint(patient)
    assert fingerprint(plain) != fingerprint(other)
    assert "one" not in fingerprint(plain)


def plan(level: Level, *, database_url: str | None = None) -> StackPlan:
    return StackPlan(
        level=level,
        fingerprint="these settings",
        environment={},
        directory=Path("/"),
        database_url=database_url,
        broker_url=None,
        idle_seconds=600,
        grace_seconds=30,
    )


def stack(**changes: object) -> StackState:
    values: dict[str, object] = {
        "supervisor": PROCESS,
        "phase": StackPhase.READY,
        "level": Level.ALL,
        "fingerprint": "these settings",
        "database_url": "postgresql+psycopg://",
    }
    return StackState.model_validate(values | changes)


@pytest.mark.parametrize(
    ("stack_plan", "state", "is_enough"),
    [
        (plan(Level.ALL), stack(), True),
        (plan(Level.DATABASE), stack(), True),
        (plan(Level.DATABASE), stack(fingerprint="others"), True),
        (plan(Level.DATABASE), stack(database_url=None), False),
        (plan(Level.ALL), stack(fingerprint="others"), False),
        (plan(Level.ALL), stack(level=Level.DATABASE), False),
        (plan(Level.ALL), stack(phase=StackPhase.LEAVING), False),
        (plan(Level.ALL, database_url="postgresql://own"), stack(database_url=None), True),
    ],
)
def test_a_running_stack_is_reused_if_it_suffices(
    *, stack_plan: StackPlan, state: StackState, is_enough: bool
) -> None:
    assert stack_plan.is_met_by(state) is is_enough


@pytest.mark.parametrize(
    ("folder", "fits"), [("/run/short", True), ("/" + "a" * 90, False), ("/with,comma", False)]
)
def test_socket_paths_are_restricted(*, folder: str, fits: bool) -> None:
    """A path must be short enough for the kernel and plain enough for PostgreSQL's clients."""
    assert fits_socket(Path(folder)) is fits


LOCAL = "local/model.gguf"


@pytest.mark.parametrize(
    ("machine", "threads", "slots"), [(1, 1, 1), (2, 1, 1), (4, 3, 2), (8, 7, 2), (64, 16, 2)]
)
def test_slots_and_threads_fit_the_number_of_cores(
    monkeypatch: pytest.MonkeyPatch, machine: int, threads: int, slots: int
) -> None:
    """One core is reserved for the other processes; a second slot needs its own cores.

    A worker that asks only the local model has as many slots.
    """
    monkeypatch.setattr("chordwise.machine.usable_cores", lambda: machine)
    remote = {"house": {"provider": "openai", "model": "m", "base_url": "http://h/v1"}}

    assert (llama.threads(), llama.slots(Settings())) == (threads, slots)
    for known, concurrency in (
        (Settings(model=LOCAL), slots),
        (Settings(model=LOCAL, fallback=("extractive",)), slots),
        (Settings(model=LOCAL, worker={"concurrency": 4}), None),
        (Settings(), None),
        (Settings(model=LOCAL, fallback=("house",), models=remote), None),
    ):
        assert llama.worker_concurrency(known) == concurrency
