"""Group commit: stores the work of many threads in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from random import Random
from typing import Generic, TypeAlias, TypeVar

from chordwise.domain.thread_groups import GatheredEntry, Gathering, LeaderFailedError
from chordwise.errors import ServiceUnavailableError

Transaction = TypeVar("Transaction")
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_MAX_ITEMS = 500
_BASE_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 5.0
_random = Random()  # noqa: S311 - jitter needs no secrecy
_sleep = time.sleep  # noqa: TID251 - the sleep function of this module


@dataclass(frozen=True, slots=True)
class _Timed(Generic[Item]):
    item: Item
    ends_at: float


_Group: TypeAlias = list[GatheredEntry[_Timed[Item], Outcome]]


class GroupCommit(Generic[Transaction, Item, Outcome]):
    """Stores the items of many threads in groups, with one transaction for each group.

    `write` stores items in the transaction of `begin` and returns an outcome for each, in order. It
    must be repeatable, since the reply to a commit can be lost. A group that fails for another
    reason than an unavailable database is stored item by item.
    """

    def __init__(
        self,
        begin: Callable[[], AbstractContextManager[Transaction]],
        write: Callable[[Transaction, Sequence[Item]], Sequence[Outcome]],
        gather_seconds: float = 0.002,
    ) -> None:
        self._begin = begin
        self._write = write
        self._gathering: Gathering[_Timed[Item], Outcome] = Gathering(
            self._store_or_pause, partial(_sleep, gather_seconds), _MAX_ITEMS
        )
        self._failures = 0

    def commit(self, item: Item, within: timedelta) -> Outcome:
        """Store an item, and return its outcome once it is committed.

        Raises:
            ServiceUnavailableError: The database was unavailable for longer than `within`.
            Exception: The exception that `write` raised for this item alone.
        """
        ends_at = time.monotonic() + within.total_seconds()
        while True:
            try:
                return self._gathering.outcome(_Timed(item, ends_at))
            except LeaderFailedError:  # what was stored is unknown; storing is repeatable
                continue

    def _store_or_pause(self, group: _Group[Item, Outcome]) -> _Group[Item, Outcome]:
        left = self._store(group)
        self._failures = self._failures + 1 if left else 0
        if left:
            ceiling = min(_MAX_PAUSE_SECONDS, _BASE_PAUSE_SECONDS * 2.0 ** (self._failures - 1))
            _sleep(_random.uniform(0, ceiling))
        return left

    def _store(self, group: _Group[Item, Outcome]) -> _Group[Item, Outcome]:
        try:
            with self._begin() as transaction:
                outcomes = self._write(transaction, [entry.item.item for entry in group])
        except ServiceUnavailableError as error:
            return _without_expired(group, error)
        except Exception as error:  # noqa: BLE001 - raised in the thread that owns the item
            if len(group) == 1:
                group[0].fail(error)
                return []
            return [left for entry in group for left in self._store([entry])]
        for entry, outcome in zip(group, outcomes, strict=True):
            entry.settle(outcome)
        return []


def _without_expired(
    group: _Group[Item, Outcome], error: ServiceUnavailableError
) -> _Group[Item, Outcome]:
    now = time.monotonic()
    for entry in group:
        if entry.item.ends_at <= now:
            entry.fail(error)
    return [entry for entry in group if not entry.is_settled]
