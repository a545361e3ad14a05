"""The only retry layer: exponential backoff with full jitter; `Retry-After` takes precedence."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from random import Random

import tenacity

from chordwise.errors import ModelTimeoutError, TransientError
from chordwise.llm.model import MIN_REQUEST_SECONDS, Completion, CompletionRequest, Middleware
from chordwise.settings import RetrySettings


@dataclass(slots=True, eq=False)
class Retrying(Middleware):
    """Retries transient errors, within the attempts and the time of the policy.

    No request starts with less time than an earlier one that timed out had. A wait above
    `max_wait_seconds` does not happen here: the error is raised with its `retry_after_seconds`, so
    that the work can be postponed without blocking a worker.
    """

    policy: RetrySettings
    sleep: Callable[[float], None]
    random: Random
    clock: Callable[[], float] = time.monotonic

    def complete(self, request: CompletionRequest) -> Completion:
        """Return the first answer; attempts are numbered from `request.attempt`.

        Raises:
            ModelError: The last error, or the first that is not transient.
        """
        ends_at = self.clock() + request.limit_seconds(self.policy.total_seconds)
        min_seconds = MIN_REQUEST_SECONDS
        numbers = count(request.attempt)

        def ask() -> Completion:
            nonlocal min_seconds
            left = request.limit_seconds(ends_at - self.clock())
            try:
                return self.model.complete(
                    replace(request, attempt=next(numbers), timeout_seconds=left)
                )
            except ModelTimeoutError as error:
                min_seconds = max(min_seconds, error.granted_seconds)
                raise

        try:
            return ask()
        except TransientError as error:
            first = [error]

        def ask_again() -> Completion:
            if first:
                raise first.pop()
            return ask()

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_retryable),
            wait=self._wait_seconds,
            stop=lambda state: self._exhausted(state, ends_at - min_seconds),
            sleep=self.sleep,
            reraise=True,
        )(ask_again)

    def _wait_seconds(self, state: tenacity.RetryCallState) -> float:
        doubled = self.policy.base_seconds * 2 ** (state.attempt_number - 1)
        jitter = self.random.uniform(0, min(doubled, self.policy.max_wait_seconds))
        return max(jitter, _requested_seconds(state))

    def _exhausted(self, state: tenacity.RetryCallState, last_start: float) -> bool:
        wait = state.upcoming_sleep
        too_late = self.clock() + wait > last_start
        too_often = state.attempt_number >= self.policy.attempts
        return too_often or too_late or wait > self.policy.max_wait_seconds


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, TransientError) and not error.has_waited


def _requested_seconds(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    seconds = error.retry_after_seconds if isinstance(error, TransientError) else None
    return seconds or 0.0
