"""A timeout for each request, derived from the measured speed of its server."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace

from chordwise.domain import tokens
from chordwise.errors import ModelTimeoutError
from chordwise.llm.model import Completion, CompletionRequest, Middleware, Timings

MARGIN = 2.0
"""The factor of the expected time that a request is allowed."""
OVERHEAD_SECONDS = 1.0
"""Added to that, since the server's measurements exclude its queue and the network."""

_REMEMBERED = 8


class Speed:
    """The speed of a server, averaged over its last answers; safe to share between threads."""

    def __init__(self) -> None:
        self._last: deque[Timings] = deque(maxlen=_REMEMBERED)
        self._lock = threading.Lock()

    def record(self, timings: Timings) -> None:
        """Record the server's measurements of an answer."""
        with self._lock:
            self._last.append(timings)

    def forget(self) -> None:
        """Discard all measurements, after a timeout has shown that the server has become slower."""
        with self._lock:
            self._last.clear()

    def seconds_for(self, prompt_tokens: int, output_tokens: int) -> float | None:
        """Return the expected time of a request at this speed; `None` without measurements."""
        with self._lock:
            last = tuple(self._last)
        read, written = sum(t.prompt_tokens for t in last), sum(t.output_tokens for t in last)
        if not read or not written:
            return None
        reading = sum(t.prompt_seconds for t in last) / read * prompt_tokens
        writing = sum(t.output_seconds for t in last) / written * output_tokens
        return reading + writing


@dataclass(slots=True, eq=False)
class Paced(Middleware):
    """Limits a request to twice the time that its prompt and longest answer need, plus a second.

    The limit is at least `min_seconds`. Before the first measured answer, and again after a
    timeout, a request may use all the time of its question, or `max_seconds`.
    """

    min_seconds: float
    max_seconds: float
    speed: Speed = field(default_factory=Speed)

    def complete(self, request: CompletionRequest) -> Completion:
        """Send one request, with a timeout derived from the measured speed."""
        try:
            completion = self.model.complete(
                replace(request, timeout_seconds=self._seconds_for(request))
            )
        except ModelTimeoutError:
            self.speed.forget()
            raise
        if completion.timings is not None:
            self.speed.record(completion.timings)
        return completion

    def _seconds_for(self, request: CompletionRequest) -> float:
        left = self.max_seconds if request.timeout_seconds is None else request.timeout_seconds
        prompt = tokens.estimate(request.system) + tokens.estimate(request.user)
        needed = self.speed.seconds_for(prompt, request.max_output_tokens)
        if needed is None:
            return left
        return min(left, max(self.min_seconds, MARGIN * needed + OVERHEAD_SECONDS))
