"""The limits of one process, for the time when Valkey cannot be asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from chordwise.llm.limits.permits import (
    CallReport,
    CallResult,
    LimitPolicy,
    Permit,
    PermitRequest,
    Reason,
    Wait,
)
from chordwise.llm.limits.state import LimitState

LONGEST_PAUSE_SECONDS = 300.0
_SHORTEST_WAIT_SECONDS = 0.05


class ProcessLimits:
    """Keeps to the limits that were last known, as if this process were alone.

    It finds nothing out: it paces, bounds the calls in flight, and honors `Retry-After`. What is
    denied it does not remember: the next call is denied again. There is no circuit breaker:
    failures are counted by all workers together or not at all.
    """

    def __init__(self, policy: LimitPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._state = LimitState.of_policy(policy)
        self._in_flight = 0
        self._next_at = 0.0
        self._paused_until = 0.0

    def remember(self, state: LimitState) -> None:
        """Take over what is known now."""
        with self._lock:
            self._state = state

    def take(self, request: PermitRequest) -> Permit | Wait:
        """Return a permit, or how long to wait and why."""
        with self._lock:
            now = self._clock()
            if now < self._paused_until:
                return Wait(seconds=self._paused_until - now, reason=Reason.PAUSED)
            if self._in_flight >= max(1, int(self._state.window)):
                return Wait(seconds=_SHORTEST_WAIT_SECONDS, reason=Reason.IN_FLIGHT)
            if now < self._next_at:
                wait = max(self._next_at - now, _SHORTEST_WAIT_SECONDS)
                return Wait(seconds=wait, reason=Reason.RATE)
            self._in_flight += 1
            self._next_at = max(self._next_at, now - 1) + self._state.seconds_for(request.cost)
            return Permit(request=request, granted_at=now, is_shared=False)

    def settle(self, permit: Permit, report: CallReport) -> None:  # noqa: ARG002 - as in the port
        """Give a permit back."""
        with self._lock:
            self._in_flight -= 1
            if report.result in {CallResult.LIMITED, CallResult.FAILED}:
                pause = min(report.retry_after_seconds or 0.0, LONGEST_PAUSE_SECONDS)
                self._paused_until = max(self._paused_until, self._clock() + pause)
