"""Gathering: one thread acts for many threads that need the same at the same time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Lock, Timer
from typing import Generic, TypeVar

from chordwise.errors import InternalError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

# The maximum number of times a leader waits while others keep coming.
_MAX_WAITS = 5


class LeaderFailedError(InternalError):
    """The leading thread failed before it had settled all entries of its group."""


@dataclass(slots=True, eq=False)
class GatheredEntry(Generic[Item, Outcome]):
    """An item of a thread that waits for its outcome or error, or to become the leader."""

    item: Item
    _outcomes: list[Outcome] = field(default_factory=list)
    _error: Exception | None = None
    is_left: bool = False
    event: Event = field(default_factory=Event)

    @property
    def is_settled(self) -> bool:
        """Whether the outcome or the error is known."""
        return bool(self._outcomes) or self._error is not None

    def settle(self, outcome: Outcome) -> None:
        """Set the outcome, and wake the waiting thread."""
        self._outcomes.append(outcome)
        self.event.set()

    def fail(self, error: Exception) -> None:
        """Set the error to raise, and wake the waiting thread."""
        self._error = error
        self.event.set()

    def result(self) -> Outcome:
        """Return the outcome of a settled entry, or raise its error."""
        if self._error is not None:
            raise self._error
        return self._outcomes[0]


class Gathering(Generic[Item, Outcome]):
    """Processes the items of threads in groups of at most `max_items`.

    `act` settles the entries of a group and returns those to retry. A thread that finds no leader
    leads: it waits briefly (`gather`) for others, acts for all, and passes the lead on once its own
    entry is settled. If the leader fails, so do the entries of its group. An item that is left to
    others (`leave`) waits at most `linger_seconds` for the next leader.
    """

    def __init__(
        self,
        act: Callable[[list[GatheredEntry[Item, Outcome]]], list[GatheredEntry[Item, Outcome]]],
        gather: Callable[[], None],
        max_items: int,
        linger_seconds: float = 0.0,
    ) -> None:
        self._act = act
        self._gather = gather
        self._max_items = max_items
        self._linger_seconds = linger_seconds
        self._lock = Lock()
        self._waiting: list[GatheredEntry[Item, Outcome]] = []
        self._is_led = False
        self._is_lingering = False

    def leave(self, item: Item, *, at_once: bool = False) -> None:
        """Leave an item to the next leader, or to this thread `at_once`, without its outcome."""
        entry: GatheredEntry[Item, Outcome] = GatheredEntry(item, is_left=True)
        if at_once or not self._linger_seconds:
            if self._leads_with(entry):
                self._lead(entry)
            return
        with self._lock:
            self._waiting.append(entry)
            if self._is_led or self._is_lingering:
                return
            self._is_lingering = True
        Timer(self._linger_seconds, self._process_left).start()

    def _process_left(self) -> None:
        with self._lock:
            self._is_lingering = False
            if self._is_led or not self._waiting:
                return
            self._is_led = True
        self._pass_lead()

    def outcome(self, item: Item) -> Outcome:
        """Return the outcome of an item.

        Raises:
            Exception: The error of this item.
        """
        entry: GatheredEntry[Item, Outcome] = GatheredEntry(item)
        if not self._leads_with(entry):
            entry.event.wait()
        if not entry.is_settled:
            self._lead(entry)
        return entry.result()

    def _leads_with(self, entry: GatheredEntry[Item, Outcome]) -> bool:
        with self._lock:
            self._waiting.append(entry)
            leads, self._is_led = not self._is_led, True
        return leads

    def _lead(self, entry: GatheredEntry[Item, Outcome]) -> None:
        try:
            for _ in range(_MAX_WAITS):
                count = len(self._waiting)
                self._gather()
                if len(self._waiting) == count:
                    break
            while not entry.is_settled:
                self._act_once()
        finally:
            self._pass_lead()

    def _act_once(self) -> None:
        with self._lock:
            group = self._waiting[: self._max_items]
            del self._waiting[: self._max_items]
        try:
            again = self._act(group)
        except BaseException as error:
            for entry in group:
                if not entry.is_settled:
                    what = f"The thread that acted for this one failed ({type(error).__name__})."
                    entry.fail(LeaderFailedError(what, "The log has the details."))
            raise
        with self._lock:
            self._waiting[:0] = again

    def _pass_lead(self) -> None:
        """Process the items left to this leader, and pass the lead on despite errors."""
        while not self._wake_next_leader():
            with suppress(Exception):  # no thread waits for left items
                self._act_once()

    def _wake_next_leader(self) -> bool:
        """Make the first waiting thread the leader; return false while only left items wait."""
        with self._lock:
            following = next((entry for entry in self._waiting if not entry.is_left), None)
            if following is not None:
                following.event.set()
                return True
            self._is_led = bool(self._waiting)
            return not self._is_led
