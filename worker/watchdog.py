"""Seeing that the worker consumes, and letting its supervisor start another when it does not."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from chordwise.errors import ServiceUnavailableError
from chordwise.telemetry.liveness import INTERVAL_SECONDS, State
from worker.consumption import Consumption

log = structlog.get_logger(__name__)

_FIRST_LOOK_SECONDS = 1.0

_LOOKS = 3


class Watchdog:
    """A thread beside Celery's event loop, which may hang or have ended.

    A broker that is away or full is waited for, however long that takes; running calls go on. A
    worker that does not consume although the broker is well, or that has ended by itself, leaves.
    """

    def __init__(
        self,
        consumption: Consumption,
        *,
        patience_seconds: float,
        ask: Callable[[], None],
        show: Callable[[State], None],
        leave: Callable[[str], None],
    ) -> None:
        self._consumption = consumption
        self._interval_seconds = min(INTERVAL_SECONDS, patience_seconds / _LOOKS)
        # Looks are counted instead of time: a process that was stopped for a while is not to blame.
        self._most_in_vain = round(patience_seconds / self._interval_seconds)
        self._in_vain = 0
        self._shown: State | None = None
        self._ask = ask
        self._show = show
        self._leave = leave

    def start(self) -> None:
        """Begin to look, every few seconds."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def begin(self, **_: object) -> None:
        """Show at once that the worker consumes, when Celery says so: its supervisor may wait."""
        self._consumption.answered()
        self._shown = State.CONSUMING
        self._show(State.CONSUMING)

    def look(self) -> State | None:
        """Look once; return what the worker does, `None` where it ought to consume."""
        state = self._observed() or self._asked()
        if state is not None:
            self._in_vain = 0
            if self._consumption.has_begun or state is State.WAITING:
                self._shown = state
                self._show(state)
            return state
        self._in_vain += 1
        if self._in_vain >= self._most_in_vain:
            self._leave("the broker is well, but nothing is consumed")
        return None

    def _observed(self) -> State | None:
        if self._consumption.is_busy:
            return State.BUSY
        lately = self._consumption.quiet_seconds < 2 * self._interval_seconds
        return State.CONSUMING if lately else None

    def _asked(self) -> State | None:
        try:
            self._ask()
        except ServiceUnavailableError as error:
            if self._shown is not State.WAITING:
                log.warning("worker.waiting", reason=error.what)
            return State.WAITING
        return None

    def _run(self) -> None:
        pause, seconds = threading.Event(), min(_FIRST_LOOK_SECONDS, self._interval_seconds)
        while not pause.wait(seconds):
            seconds = self._interval_seconds
            try:
                self.look()
            except Exception:  # a home on a full disk, say, must not end the watch
                log.exception("watchdog.defect")
