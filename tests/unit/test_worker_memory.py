"""Tests of the limit on the memory of a worker process."""

from __future__ import annotations

import pytest

from chordwise.readers import capacity
from chordwise.settings.sections import WorkerSettings
from worker.memory import MemoryWatch, limit_megabytes, resident_megabytes


def test_a_process_stops_once_above_its_limit_and_ends_far_above_it() -> None:
    said: list[str] = []
    sizes = iter([90, 101, 110, 120, 121])
    watch = MemoryWatch(
        100,
        stop=lambda reason: said.append(f"stop: {reason}"),
        end=lambda reason: said.append(f"end: {reason}"),
        read=lambda: next(sizes),
    )

    for _ in range(5):
        watch.check()

    assert said == [
        "stop: it takes 101 MB, and worker.memory_megabytes is 100",
        "end: it takes 121 MB, and worker.memory_megabytes is 100",
    ]
    assert 10 < resident_megabytes() < 10_000


@pytest.mark.parametrize(
    ("available", "processes", "limit"),
    [(1_024, 2, 683), (1_024, 1, 819), (256, 2, 256), (64_000, 16, 2_048)],
)
def test_the_limit_suits_the_memory(
    available: int, processes: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of one process and the usual memory of the others are below the container's."""
    monkeypatch.setattr(capacity, "memory_megabytes", lambda: available)

    assert limit_megabytes(WorkerSettings(), processes) == limit
    assert limit_megabytes(WorkerSettings(memory_megabytes=99), processes) == 99
