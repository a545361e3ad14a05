"""Waits for a run and shows its progress."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from threading import Event

from chordwise.embedded import stack
from chordwise.errors import ServiceUnavailableError
from chordwise.relations import progress
from chordwise.relations.progress import Pace, Progress
from chordwise.rendering.live import Display
from chordwise.settings import Settings
from chordwise.storage.database import Database, connected, driver

# The polling interval grows with the duration of the wait.
_MIN_SECONDS, _MAX_SECONDS = 0.25, 1.0
_SHARE_OF_WAIT = 40
# It is also at least this many times the duration of a query.
_QUERY_TIMES = 20
_KEEP_ALIVE_SECONDS = 30.0
_STILL_SECONDS = 60.0
_OUTAGE_SECONDS = 60.0
_WITHIN_A_DAY = (
    "Batches are answered within a day; `chordwise runs RUN` shows their status. Ctrl-C detaches."
)


class RunWatch:
    """One wait for one run.

    `warn` is called with a sentence when the run does not progress. `pause` waits for a number of
    seconds and returns whether to detach.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        warn: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], bool | None] | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._warn = warn
        self._clock = clock
        self._pause = pause or Event().wait
        self._pace = Pace()
        self._touched_at = float("-inf")
        self._moved_at = self._reached_at = clock()
        self._last: Progress | None = None
        self._warned = ""

    def wait_until_over(self, run_id: uuid.UUID, display: Display) -> Progress:
        """Show the progress of a run until it finishes or needs intervention.

        Raises:
            KeyboardInterrupt: The pause was interrupted.
            ServiceUnavailableError: The database stays unavailable.
        """
        first = self._clock()
        while True:
            began = self._clock()
            try:
                with self._database.read() as session:
                    state = progress.read(driver(session), run_id)
            except ServiceUnavailableError:
                if self._clock() - self._reached_at > _OUTAGE_SECONDS:
                    raise
            else:
                self._reached_at = self._clock()
                self._record(state)
                display.progress(state, self._pace)
                if state.is_over:
                    return state
            now = self._clock()
            if now - self._touched_at > _KEEP_ALIVE_SECONDS:
                self._touched_at = now
                stack.touch_last_used(self._settings.home)
            usual = min(_MAX_SECONDS, (now - first) / _SHARE_OF_WAIT)
            seconds = max(_MIN_SECONDS, usual, (now - began) * _QUERY_TIMES)
            if self._pause(seconds):
                raise KeyboardInterrupt

    def _record(self, state: Progress) -> None:
        now = self._clock()
        self._pace.record(now, state)
        if state != self._last:
            self._last, self._moved_at = state, now
        elif now - self._moved_at > _STILL_SECONDS:
            self._moved_at = now
            sentence = self.diagnosis(state)
            if sentence != self._warned:
                self._warn(sentence)
            self._warned = sentence

    def diagnosis(self, state: Progress) -> str:
        """Return why there may be no progress."""
        if state.batches:
            return _WITHIN_A_DAY
        still = f"No progress for {_STILL_SECONDS:.0f} seconds"
        if state.jobs.waiting and not state.jobs.unsplit:
            return f"{still}: {state.jobs.waiting} jobs wait for the provider. Ctrl-C detaches."
        try:
            with self._database.read() as session:
                has_worker = "worker" in connected(session)
        except ServiceUnavailableError:
            return f"{still}, and the database is unavailable. Ctrl-C detaches."
        from chordwise.pipeline.runtime import broker  # noqa: PLC0415 - loads Redis's client

        if has_worker or broker.has_worker(self._settings):
            return f"{still}; a worker is connected. A model call may take minutes."
        return f"{still}, and no worker is connected. Run `chordwise up` or `chordwise doctor`."
