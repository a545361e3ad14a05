"""Tests of gathering: one thread processes the items of concurrent callers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest

from chordwise.domain.thread_groups import GatheredEntry, Gathering, LeaderFailedError
from tests.fakes.processes import wait_until

THREADS = 8
TIMEOUT_SECONDS = 20.0


class Group:
    """Doubles numbers and records the groups; rejects negative numbers."""

    def __init__(self, gather: Callable[[], None] = lambda: None) -> None:
        self.groups: list[list[int]] = []
        self.gathering: Gathering[int, int] = Gathering(self.act, gather, max_items=THREADS)

    def act(self, group: list[GatheredEntry[int, int]]) -> list[GatheredEntry[int, int]]:
        self.groups.append([entry.item for entry in group])
        for entry in group:
            if entry.item < 0:
                entry.fail(ValueError("negative"))
            else:
                entry.settle(2 * entry.item)
        return []


def test_concurrent_items_are_each_processed_once() -> None:
    barrier = Barrier(THREADS)
    submitted = Event()
    group = Group(gather=lambda: assert_set(submitted))

    def ask(number: int) -> int:
        barrier.wait(TIMEOUT_SECONDS)
        return group.gathering.outcome(number)

    with ThreadPoolExecutor(THREADS) as threads:
        futures = [threads.submit(ask, number) for number in range(THREADS)]
        submitted.set()
        assert [future.result(TIMEOUT_SECONDS) for future in futures] == list(
            range(0, 2 * THREADS, 2)
        )

    assert sorted(number for numbers in group.groups for number in numbers) == list(range(THREADS))


def test_an_error_is_raised_in_the_caller_of_its_item() -> None:
    """An item without a waiting caller is processed immediately, and its error is not raised."""
    group = Group()

    with pytest.raises(ValueError, match="negative"):
        group.gathering.outcome(-1)
    group.gathering.leave(-2)

    assert group.gathering.outcome(3) == 6
    assert group.groups == [[-1], [-2], [3]]


def test_the_leader_processes_left_items_before_it_returns() -> None:
    group = Group()

    def leave_two() -> None:
        if not group.groups and not left:
            left.extend([5, -6])
            for number in left:
                group.gathering.leave(number)

    left: list[int] = []
    group.gathering = Gathering(group.act, leave_two, max_items=1)

    assert group.gathering.outcome(4) == 8
    assert group.groups == [[4], [5], [-6]]


def test_a_lingering_item_is_processed_with_the_next_item() -> None:
    group = Group()
    group.gathering = Gathering(group.act, lambda: None, THREADS, linger_seconds=3.0)

    group.gathering.leave(1)
    assert group.groups == []
    assert group.gathering.outcome(2) == 4
    group.gathering.leave(3, at_once=True)

    assert group.groups == [[1, 2], [3]]


def test_a_lingering_item_is_processed_without_a_next_item() -> None:
    done = Event()

    def act(group: list[GatheredEntry[int, int]]) -> list[GatheredEntry[int, int]]:
        group[0].settle(0)
        done.set()
        return []

    gathering: Gathering[int, int] = Gathering(act, lambda: None, THREADS, linger_seconds=0.01)
    gathering.leave(1)

    assert_set(done)


def assert_set(event: Event) -> None:
    assert event.wait(TIMEOUT_SECONDS)


def test_a_failed_leader_leaves_no_thread_waiting() -> None:
    failed = Event()

    def act(group: list[GatheredEntry[int, int]]) -> list[GatheredEntry[int, int]]:
        if not failed.is_set():
            failed.set()
            raise SystemExit
        group[0].settle(group[0].item)
        return []

    def both_are_waiting() -> bool:
        return failed.is_set() or len(gathering._waiting) == 2

    def gather() -> None:
        wait_until(both_are_waiting, TIMEOUT_SECONDS, "both threads wait")

    gathering: Gathering[int, int] = Gathering(act, gather, max_items=2)
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(gathering.outcome, number) for number in range(2)]
        raised = {type(future.exception(TIMEOUT_SECONDS)) for future in futures}

    assert raised == {SystemExit, LeaderFailedError}
    assert gathering.outcome(3) == 3


def test_an_error_of_a_left_item_does_not_block_the_next_leader() -> None:
    def act(group: list[GatheredEntry[int, int]]) -> list[GatheredEntry[int, int]]:
        for entry in group:
            if entry.is_left:
                raise ValueError("not reported")
            entry.settle(entry.item)
        return []

    gathering: Gathering[int, int] = Gathering(act, lambda: gathering.leave(-1), max_items=1)

    assert gathering.outcome(1) == 1
    assert gathering.outcome(2) == 2
