"""The errors of Chordwise, with their codes and exit codes.

    ChordwiseError
    ├── InternalError                 a bug in Chordwise
    │   └── AlreadyAskedError         another call asks the same question (never seen by users)
    ├── UsageError                    the arguments or the request are invalid
    ├── ConfigurationError            a setting is missing or invalid
    ├── ServiceUnavailableError       database, broker or stack is unreachable    (transient)
    │   └── DatabaseRefusedError      the database refuses the connection or the work
    ├── ReadError                     a file could not be converted to text
    ├── ModelError                    a model call returned no usable answer
    │   ├── ModelTransportError       no answer, or an incomplete one             (transient)
    │   │   ├── ModelUnreachableError no connection; nothing was sent
    │   │   └── ModelTimeoutError     no complete answer within the timeout
    │   ├── ModelOverloadedError      the provider is overloaded                  (transient)
    │   ├── RateLimitedError          too many requests                           (transient)
    │   ├── BudgetReservedError       the rest is reserved for calls in flight    (transient)
    │   ├── BudgetExceededError       the budget of the run or day is used up     (pauses)
    │   ├── QuotaExceededError        no credit or quota left                     (pauses)
    │   ├── ModelAccessError          key, permission or model name refused       (pauses)
    │   ├── ModelRequestError         the provider rejects this request permanently
    │   │   └── ContextTooLongError   the prompt does not fit the model
    │   ├── RefusedError              the model declined to answer
    │   ├── TruncatedError            the answer hit the output limit
    │   ├── AnswerTimeoutError        the built-in model did not finish in time
    │   └── InvalidAnswerError        the answer does not match the schema
    ├── AwaitingBatchError            the answer comes with a batch           (transient)
    ├── DeliveryError                 the end of a run could not be delivered
    │   └── DeliveryRefusedError      the receiver rejected it permanently
    ├── RegressionError               answers have become worse
    ├── LeaseLostError                another process took the work over
    └── RunCancelledError             the run is cancelled

Only errors with the mixin `TransientError` are retried. `PausingError` pauses the work until a user
acts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """The exit codes of `chordwise` commands (docs/command-line.md)."""

    SUCCESS = 0
    INTERNAL = 1
    USAGE = 2
    INCOMPLETE = 3
    UNAVAILABLE = 69
    CONFIGURATION = 78
    DETACHED = 130


class ChordwiseError(Exception):
    """What happened, and what to do about it.

    `code` is stable and is stored in tables and logs; the sentence and the hint are for users.
    `usual_hint` is the default hint.
    """

    code: ClassVar[str] = "internal"
    usual_hint: ClassVar[str] = ""
    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint)

    @property
    def what(self) -> str:
        """One sentence: what happened, and where."""
        return str(self.args[0])

    @property
    def hint(self) -> str:
        """What the user can do next; may be empty."""
        return str(self.args[1]) or self.usual_hint

    def __str__(self) -> str:
        return self.what


class TransientError(ChordwiseError):
    """Mixin: the same request may succeed later, at the earliest after `retry_after_seconds`.

    `is_throttling`: the work waits for its turn, and postponing it does not count as a failure.
    `has_waited`: the caller has already waited, so the work is postponed, not repeated at once.
    `reported_limits`: the limits that a provider reported with its refusal.
    """

    retry_after_seconds: float | None = None
    is_throttling: bool = False
    has_waited: bool = False
    reported_limits: object = None


class PausingError(ChordwiseError):
    """Mixin: every further request would fail in the same way until a user acts.

    `is_about_key`: this applies to every model with the same key.
    """

    is_about_key: bool = False


class InternalError(ChordwiseError):
    """A bug in Chordwise; the log contains the details."""


class AlreadyAskedError(InternalError):
    """Another call in flight asks the same question, or its answer has just been stored.

    The cache then waits for that answer, so no one sees this error.
    """


class UsageError(ChordwiseError):
    """The arguments or the request are invalid."""

    code = "usage"
    exit_code = ExitCode.USAGE


class ConfigurationError(ChordwiseError):
    """A setting is missing or invalid, or contradicts another one."""

    code = "configuration"
    exit_code = ExitCode.CONFIGURATION


class ServiceUnavailableError(TransientError):
    """The database, the broker or the embedded stack is unreachable."""

    code = "service_unavailable"
    exit_code = ExitCode.UNAVAILABLE


class RegressionError(ChordwiseError):
    """Answers have become worse by more than chance explains."""

    code = "regression"
    exit_code = ExitCode.INCOMPLETE
    usual_hint = "Check what changed: documents, model or prompt. See docs/learning.md."


class DatabaseRefusedError(ServiceUnavailableError):
    """The database is reachable but refuses the connection or the work.

    A user has to act. Running processes wait, as for an unavailable database; starting processes
    exit.
    """

    exit_code = ExitCode.CONFIGURATION


class LeaseLostError(ChordwiseError):
    """The lease expired and another process took over the work; nothing was written."""

    code = "lease_lost"


class RunCancelledError(ChordwiseError):
    """The run is cancelled: it takes in no documents and asks no questions."""

    code = "cancelled"
    exit_code = ExitCode.INCOMPLETE


class AwaitingBatchError(TransientError):
    """The question is part of a batch; the work continues when its answer arrives.

    `retry_after_seconds` is the end of the wait. It is not a `ModelError`, so no other model,
    prompt or tier is tried.
    """

    code = "awaiting_batch"
    is_throttling = True
    has_waited = True


class DeliveryError(ChordwiseError):
    """The end of a run could not be delivered to a receiver; the delivery is retried."""

    code = "delivery"


class DeliveryRefusedError(DeliveryError):
    """The receiver rejected the delivery permanently."""

    code = "delivery_refused"


class ReadError(ChordwiseError):
    """A file could not be converted to text; `reason` is more specific than `outcome`."""

    code = "unreadable"
    exit_code = ExitCode.INCOMPLETE

    def __init__(
        self, what: str, hint: str = "", outcome: str = "unreadable", reason: str = ""
    ) -> None:
        super().__init__(what, hint)
        self.args = (what, hint, outcome, reason)

    @property
    def outcome(self) -> str:
        """The value that `intakes.outcome` takes."""
        return str(self.args[2])

    @property
    def reason(self) -> str:
        """A stable code for scripts, such as `needs_ocr`; by default the outcome."""
        return str(self.args[3]) or self.outcome


class ModelError(ChordwiseError):
    """A model call returned no usable answer."""

    code = "model"
    exit_code = ExitCode.INCOMPLETE


class ModelTransportError(ModelError, TransientError):
    """The connection failed, timed out, or closed before the answer was complete."""

    code = "model_transport"
    usual_hint = (
        "If it persists, check base_url, the provider's status and any proxies, then run "
        "`chordwise continue RUN`."
    )


class ModelUnreachableError(ModelTransportError):
    """The connection failed before anything was sent, so nothing is charged."""


class ModelTimeoutError(ModelTransportError):
    """The answer was not complete within `granted_seconds`.

    No request of the same question begins with less time than that.
    """

    code = "model_timeout"
    usual_hint = (
        "Raise timeout_seconds of the model and retries.total_seconds, lower the number of "
        "concurrent calls, or set a smaller pipeline.chunk_tokens; "
        "then run `chordwise continue RUN`."
    )

    def __init__(self, what: str, hint: str = "", *, granted_seconds: float = 0.0) -> None:
        super().__init__(what, hint)
        self.granted_seconds = granted_seconds


def seconds_not_enough(errors: Iterable[ChordwiseError]) -> float:
    """Return the longest timeout that was too short among these errors; 0 if there is none."""
    return max((e.granted_seconds for e in errors if isinstance(e, ModelTimeoutError)), default=0.0)


def first_transient_or_first(errors: Sequence[ModelError]) -> ModelError:
    """Return the first transient error, else the first error, so that the work is postponed."""
    return next((error for error in errors if isinstance(error, TransientError)), errors[0])


class ModelOverloadedError(ModelError, TransientError):
    """The provider is overloaded or has an outage."""

    code = "model_overloaded"
    usual_hint = "Check the provider's status, then run `chordwise continue RUN`."


class RateLimitedError(ModelError, TransientError):
    """The provider limits the rate of requests."""

    code = "rate_limited"
    is_throttling = True
    usual_hint = (
        "Try again later. If it persists, raise the limit at the provider, or lower "
        "max_in_flight of the model."
    )


class BudgetReservedError(ModelError, TransientError):
    """The rest of the budget is reserved for calls in flight, which may need less."""

    code = "budget_reserved"
    is_throttling = True
    has_waited = True
    usual_hint = (
        "Wait for the calls in flight, or raise the budget with "
        "`chordwise continue RUN --budget USD` or budget.usd_per_day."
    )


class BudgetExceededError(ModelError, PausingError):
    """The next request could cost more than the rest of the budget of the run or the day."""

    code = "budget_exceeded"
    usual_hint = "Raise it with `chordwise continue RUN --budget USD` or budget.usd_per_day."


class QuotaExceededError(ModelError, PausingError):
    """The account has no credit or quota left; waiting does not help."""

    code = "quota_exceeded"
    usual_hint = "Top up the account or raise its limit at the provider, then retry the run."


class ModelAccessError(ModelError, PausingError):
    """The provider refuses the key, the account, or the model's name."""

    code = "model_access"
    usual_hint = "Check api_key, model and base_url (which usually ends in /v1)."


class ModelRequestError(ModelError):
    """The provider rejects this request permanently; retrying does not help."""

    code = "model_request"
    usual_hint = "Check the model's options and the schema."


class ContextTooLongError(ModelRequestError):
    """The prompt and the answer do not fit the context of the model."""

    code = "context_too_long"
    usual_hint = "Set a smaller pipeline.chunk_tokens, or choose a model with a larger context."


class RefusedError(ModelError):
    """The model or the provider's filter declined to answer."""

    code = "refused"
    usual_hint = "Check the document, or use another model with --model."


class TruncatedError(ModelError):
    """The answer reached the output limit and is not complete."""

    code = "truncated"
    usual_hint = (
        "Raise max_output_tokens and max_output_tokens_on_retry of the model, or set a smaller "
        "pipeline.chunk_tokens."
    )


class AnswerTimeoutError(ModelError):
    """The built-in model did not finish within its timeout; retrying does not help."""

    code = "answer_timeout"
    usual_hint = "Set a smaller pipeline.chunk_tokens, or raise timeout_seconds of the model."


class InvalidAnswerError(ModelError):
    """The answer does not match the JSON schema, even after one repair."""

    code = "invalid_answer"
    usual_hint = "Use a model that follows the schema: --model, or fallback in the settings."
