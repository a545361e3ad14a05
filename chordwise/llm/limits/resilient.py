"""Shared limits as long as Valkey answers, the process's own while it does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import redis
import structlog

from chordwise.llm.limits.permits import CallReport, Denial, Limits, Permit, PermitRequest, Wait
from chordwise.llm.limits.process import ProcessLimits
from chordwise.llm.limits.state import LimitState

log = structlog.get_logger(__name__)

# Valkey is not asked again sooner, nor what it knows remembered more often.
PAUSE_SECONDS = 5.0


class ResilientLimits:
    """Never fails a call for want of Valkey; each outage is told once, and its end too.

    `read` returns what all know together, for the hard times.
    """

    def __init__(
        self,
        shared: Limits,
        process: ProcessLimits,
        read: Callable[[], LimitState],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = shared
        self._process = process
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._away_until = 0.0
        self._is_away = False
        self._read_at = float("-inf")

    def take(self, request: PermitRequest) -> Permit | Wait | Denial:
        """Return a permit, how long to wait and why, or why nobody may ask."""
        if self._clock() >= self._away_until:
            try:
                answer = self._shared.take(request)
                self._remember()
            except (redis.RedisError, OSError) as error:
                self._note_away(error)
            else:
                self._note_back()
                return answer
        return self._process.take(request)

    def settle(self, permit: Permit, report: CallReport) -> None:
        """Give a permit back to whoever granted it."""
        if not permit.is_shared:
            self._process.settle(permit, report)
        elif self._clock() >= self._away_until:
            try:
                self._shared.settle(permit, report)
            except (redis.RedisError, OSError) as error:
                self._note_away(error)

    def _remember(self) -> None:
        with self._lock:
            if self._clock() < self._read_at + PAUSE_SECONDS:
                return
            self._read_at = self._clock()
        self._process.remember(self._read())

    def _note_away(self, error: Exception) -> None:
        with self._lock:
            self._away_until = self._clock() + PAUSE_SECONDS
            if not self._is_away:
                log.warning("limits.not_shared", error=type(error).__name__)
            self._is_away = True

    def _note_back(self) -> None:
        with self._lock:
            if self._is_away:
                log.info("limits.shared_again")
            self._is_away = False
