"""Tests of the limit on the memory of a worker process."""

from __future__ import annotations

import pytest

from chordwise import machine
from worker.process import limit_megabytes, resident_megabytes, watch_memory


def test_a_process_leaves_above_its_limit_and_at_once_far_above_it() -> None:
    said: list[tuple[str, bool]] = []

    watch_memory(
        100, leave=lambda *arguments: said.append(arguments), sizes=[90, 101, 110, 120, 121]
    )

    assert said == [
        ("it takes 101 MB, and worker.memory_megabytes is 100", False),
        ("it takes 121 MB, and worker.memory_megabytes is 100", True),
    ]
    assert 10 < next(resident_megabytes()) < 10_000


@pytest.mark.parametrize(
    ("available", "processes", "limit"),
    [(1_024, 2, 683), (1_024, 1, 819), (256, 2, 256), (64_000, 16, 2_048)],
)
def test_the_limit_suits_the_memory(
    available: int, processes: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of one process and the usual memory of the others are below the container's."""
    monkeypatch.setattr(machine, "memory_megabytes", lambda: available)

    assert limit_megabytes(processes) == limit
