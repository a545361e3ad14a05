"""The threads that tasks run in."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue

import pytest
from structlog.testing import capture_logs

from worker.consumption import Consumption, CountedThreads


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountedThreads]:
    """Return a pool of one thread."""
    monkeypatch.setattr(CountedThreads, "consumption", Consumption(1), raising=False)
    opened = CountedThreads(1)
    yield opened
    opened.on_stop()


def test_a_task_occupies_its_slot_while_it_runs(pool: CountedThreads) -> None:
    """The only slot is busy inside the task, and free afterward."""
    answers: SimpleQueue[object] = SimpleQueue()

    def task() -> tuple[int, object, float]:
        return (0, pool.consumption.is_busy, 0.0)

    pool.on_apply(task, (), {}, callback=answers.put)
    answer = answers.get(timeout=10)
    pool.on_stop()

    assert answer == (0, True, 0.0)
    assert not pool.consumption.is_busy


def test_a_task_whose_end_cannot_be_noted_frees_its_slot(pool: CountedThreads) -> None:
    """Celery hears of an end in any case, or it would count the slot as taken forever."""
    answers: SimpleQueue[object] = SimpleQueue()

    def task() -> None:
        raise OSError("the broker takes no result")

    with capture_logs() as logs:
        pool.on_apply(task, (), {}, callback=answers.put)
        answer = answers.get(timeout=10)

    assert answer == (0, None, 0.0)
    assert [(line["event"], line["error"]) for line in logs] == [("task.end_not_noted", "OSError")]
