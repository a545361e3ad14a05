"""The only retry layer: exponential backoff with full jitter; `Retry-After` takes precedence."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

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
        min_seconds, retries = MIN_REQUEST_SECONDS, 0
        while True:
            left = request.limit_seconds(ends_at - self.clock())
            attempt = request.attempt + retries
            try:
                return self.model.complete(replace(request, attempt=attempt, timeout_seconds=left))
            except TransientError as error:
                if isinstance(error, ModelTimeoutError):
                    min_seconds = max(min_seconds, error.granted_seconds)
                wait = self._wait_seconds(error, retries)
                retries += 1
                is_too_late = self.clock() + wait > ends_at - min_seconds
                is_too_long = is_too_late or wait > self.policy.max_wait_seconds
                if error.has_waited or retries >= self.policy.attempts or is_too_long:
                    raise
            self.sleep(wait)

    def _wait_seconds(self, error: TransientError, retries: int) -> float:
        longest = min(self.policy.base_seconds * 2**retries, self.policy.max_wait_seconds)
        return max(self.random.uniform(0, longest), error.retry_after_seconds or 0.0)
