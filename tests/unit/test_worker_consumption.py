"""Tests of the threads that run tasks, and of the consumption watchdog, with a simulated clock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue

import pytest
from structlog.testing import capture_logs

from chordwise.errors import ConfigurationError, ServiceUnavailableError
from chordwise.telemetry.liveness import State
from worker.threads import ChunkThreads, Consumption, CountedThreads, Watchdog


@dataclass(slots=True)
class World:
    """A worker with two slots, its broker, and the actions of the watchdog."""

    now: float = 0.0
    broker_is_healthy: bool = True
    shown: list[State] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    questions: int = 0

    def ping(self) -> None:
        self.questions += 1
        if not self.broker_is_healthy:
            raise ServiceUnavailableError("The broker is full.")


def watched(world: World) -> tuple[Consumption, Watchdog]:
    consumption = Consumption(2, clock=lambda: world.now)
    watchdog = Watchdog(
        consumption,
        timeout_seconds=15,
        ping=world.ping,
        show=world.shown.append,
        leave=world.reasons.append,
    )
    return consumption, watchdog


def test_a_worker_that_receives_messages_is_consuming() -> None:
    """This is reported only after it has begun."""
    world = World()
    consumption, watchdog = watched(world)
    _, beginning = watched(starting := World())

    world.now = 60
    consumption.answered()
    world.now = 65
    assert watchdog.check() is State.CONSUMING
    assert (world.shown, world.questions) == ([State.CONSUMING], 0)
    starting.now = 1
    assert beginning.check() is State.CONSUMING  # the timeout has not passed yet
    assert starting.shown == []
    beginning.begin(sender="Celery")
    assert starting.shown == [State.CONSUMING]


def test_a_worker_without_a_free_slot_is_busy_without_a_time_limit() -> None:
    """With a free slot it must request messages."""
    world = World()
    consumption, watchdog = watched(world)

    with consumption.working(), consumption.working():
        world.now = 3_600
        states = [watchdog.check() for _ in range(10)]
    assert states == [State.BUSY] * 10
    assert watchdog.check() is State.CONSUMING  # a slot has just become free
    assert world.reasons == []

    with consumption.working():
        world.now += 60
        states = [watchdog.check() for _ in range(3)]
    assert states == [None] * 3
    assert len(world.reasons) == 1


def test_a_worker_waits_for_an_unavailable_broker() -> None:
    """It reports that it waits, also at its start, and never restarts for this reason.

    The timeout begins again when the broker is available.
    """
    world = World(broker_is_healthy=False)
    consumption, watchdog = watched(world)

    world.now = 60
    assert [watchdog.check() for _ in range(20)] == [State.WAITING] * 20
    assert world.shown == [State.WAITING] * 20
    world.broker_is_healthy = True
    assert [watchdog.check() for _ in range(2)] == [None, None]
    consumption.answered()
    assert watchdog.check() is State.CONSUMING
    assert world.reasons == []


def test_a_worker_that_does_not_consume_from_a_healthy_broker_exits() -> None:
    """It does not exit at the first check or after the process was suspended for an hour."""
    world = World()
    _, watchdog = watched(world)

    world.now = 3_600
    watchdog.check()
    watchdog.check()
    assert world.reasons == []
    watchdog.check()

    assert world.reasons == ["the broker answers, but the worker consumes no messages"]
    assert world.shown == []


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountedThreads]:
    monkeypatch.setattr(CountedThreads, "consumption", Consumption(1), raising=False)
    monkeypatch.setattr(CountedThreads, "chunk_threads", ChunkThreads(4), raising=False)
    opened = CountedThreads(1)
    yield opened
    opened.on_stop()


def test_a_task_occupies_its_slot_while_it_runs(pool: CountedThreads) -> None:
    answers: SimpleQueue[object] = SimpleQueue()

    pool.on_apply(lambda: (0, pool.consumption.is_busy, 0.0), (), {}, callback=answers.put)
    answer = answers.get(timeout=10)
    pool.on_stop()

    assert answer == (0, True, 0.0)
    assert not pool.consumption.is_busy


def test_a_task_frees_its_slot_if_its_end_cannot_be_recorded(pool: CountedThreads) -> None:
    """Celery always gets a result; otherwise it would never free the slot."""
    answers: SimpleQueue[object] = SimpleQueue()

    def task() -> None:
        raise OSError("the broker takes no result")

    with capture_logs() as logs:
        pool.on_apply(task, (), {}, callback=answers.put)
        answer = answers.get(timeout=10)

    assert answer == (0, None, 0.0)
    assert [(line["event"], line["error"]) for line in logs] == [
        ("task.end_not_recorded", "OSError")
    ]


def test_messages_are_taken_only_for_free_slots_and_one_slice_ahead(pool: CountedThreads) -> None:
    """Until its chunks begin, a message counts as the chunks that the threads can prepare."""
    answers: SimpleQueue[object] = SimpleQueue()
    cut, answered = threading.Event(), threading.Event()
    rooms: list[bool] = []
    woken: list[bool] = []
    pool.chunk_threads.on_room = lambda: woken.append(pool.chunk_threads.has_room)

    def task() -> tuple[int, object, float]:
        cut.wait(10)
        begun = pool.chunk_threads.begin(lambda _: answered.wait(10), range(4))
        return (0, all(future.result() for future in begun), 0.0)

    def other() -> tuple[int, object, float]:
        return (0, "other", 0.0)

    for function in (task, other):
        rooms.append(pool.chunk_threads.has_room)
        pool.on_apply(function, (), {}, callback=answers.put)
    rooms.append(pool.chunk_threads.has_room)
    cut.set()
    answered.set()
    ended = [answers.get(timeout=10), answers.get(timeout=10)]
    pool.on_stop()

    assert rooms == [True, True, False]  # four concurrent calls, and another slice in preparation
    assert ended == [(0, True, 0.0), (0, "other", 0.0)]
    assert pool.chunk_threads.has_room
    assert woken == [True]


def test_all_threads_of_the_slots_start_at_once() -> None:
    """No slice can fail later because the system allows no further thread."""
    before = set(threading.enumerate())
    slots = ChunkThreads(3)

    started = set(threading.enumerate()) - before
    assert [thread.name.partition("_")[0] for thread in started] == ["slot"] * 6
    assert [future.result() for future in slots.begin(abs, [-1, 2, -3, 4])] == [1, 2, 3, 4]


def test_too_few_allowed_threads_are_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    start, left = threading.Thread.start, [None] * 4

    def limited(thread: threading.Thread) -> None:
        if not left:
            raise RuntimeError("can't start new thread")
        left.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)

    with pytest.raises(ConfigurationError, match="4 of 6 threads") as raised:
        ChunkThreads(3)
    assert "worker.concurrency" in raised.value.hint
