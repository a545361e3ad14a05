"""Group commit: what many threads want stored at the same moment goes in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from threading import Event, Lock
from typing import Generic, TypeVar

from sqlalchemy.orm import Session, sessionmaker

from chordwise.errors import ServiceUnavailableError
from chordwise.storage.engine import reaching_database

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

MAX_ITEMS = 500
_BASE_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 5.0
_random = Random()  # noqa: S311 - jitter needs no secrecy
_sleep = time.sleep  # noqa: TID251 - here the waiting is wired in


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item, Outcome]):
    """An item of one thread, which waits for `settled`: its outcome, its error, or the lead."""

    item: Item
    ends_at: float
    outcomes: list[Outcome] = field(default_factory=list)
    error: Exception | None = None
    event: Event = field(default_factory=Event)

    @property
    def is_settled(self) -> bool:
        return bool(self.outcomes) or self.error is not None

    def outcome(self) -> Outcome:
        if self.error is not None:
            raise self.error
        return self.outcomes[0]


class GroupCommit(Generic[Item, Outcome]):
    """Stores items of many threads with one transaction for each group of them.

    `write` stores items and returns an outcome for each, in their order; it must be repeatable,
    since the answer to a commit can be lost. A thread that finds no group being stored leads: it
    waits for `gather_seconds`, stores what has gathered, and hands the lead to the next in line.
    A group that fails for another reason than an unavailable database is stored item by item, so
    that one bad item harms no other.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        write: Callable[[Session, Sequence[Item]], Sequence[Outcome]],
        gather_seconds: float = 0.002,
    ) -> None:
        self._sessions = sessions
        self._write = write
        self._gather_seconds = gather_seconds
        self._lock = Lock()
        self._waiting: list[_Entry[Item, Outcome]] = []
        self._is_led = False

    def commit(self, item: Item, within: timedelta) -> Outcome:
        """Return the outcome of an item once it is committed.

        Raises:
            ServiceUnavailableError: The database stayed away for longer than `within`.
            Exception: What `write` raised for this item alone.
        """
        entry = _Entry[Item, Outcome](item, time.monotonic() + within.total_seconds())
        with self._lock:
            self._waiting.append(entry)
            leads, self._is_led = not self._is_led, True
        if not leads:
            entry.event.wait()
        if not entry.is_settled:
            self._lead(entry)
        return entry.outcome()

    def _lead(self, entry: _Entry[Item, Outcome]) -> None:
        tries = 0
        try:
            _sleep(self._gather_seconds)
            while not entry.is_settled:
                with self._lock:
                    group = self._waiting[:MAX_ITEMS]
                    del self._waiting[:MAX_ITEMS]
                left = self._store(group)
                with self._lock:
                    self._waiting[:0] = left
                if not entry.is_settled:
                    ceiling = min(_MAX_PAUSE_SECONDS, _BASE_PAUSE_SECONDS * 2.0**tries)
                    _sleep(_random.uniform(0, ceiling))
                    tries += 1
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        """Let the first who still waits lead."""
        with self._lock:
            self._is_led = bool(self._waiting)
            if self._waiting:
                self._waiting[0].event.set()

    def _store(self, group: list[_Entry[Item, Outcome]]) -> list[_Entry[Item, Outcome]]:
        """Store a group; return those entries that try again, since the database is away."""
        try:
            outcomes = self._transact(group)
        except ServiceUnavailableError as error:
            return _without_expired(group, error)
        except Exception as error:  # noqa: BLE001 - it is handed to the thread whose item it is
            if len(group) == 1:
                group[0].error = error
                group[0].event.set()
                return []
            return [left for entry in group for left in self._store([entry])]
        for entry, outcome in zip(group, outcomes, strict=True):
            entry.outcomes.append(outcome)
            entry.event.set()
        return []

    def _transact(self, group: Sequence[_Entry[Item, Outcome]]) -> Sequence[Outcome]:
        with reaching_database(), self._sessions.begin() as session:
            return self._write(session, [entry.item for entry in group])


def _without_expired(
    group: list[_Entry[Item, Outcome]], error: ServiceUnavailableError
) -> list[_Entry[Item, Outcome]]:
    now = time.monotonic()
    for entry in group:
        if entry.ends_at <= now:
            entry.error = error
            entry.event.set()
    return [entry for entry in group if not entry.is_settled]
