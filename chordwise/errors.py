"""The errors of Chordwise, and what each means to a person and to a script.

    ChordwiseError
    ├── InternalError                 a defect of ours
    ├── UsageError                    the command was asked for something it cannot do
    ├── ConfigurationError            a setting is missing, wrong or contradicts another
    ├── ServiceUnavailableError       database, broker or stack out of reach      (transient)
    │   └── DatabaseRefusedError      the database is there and does not let us work as configured
    ├── ReadError                     a file could not become text
    ├── ModelError                    a model call did not bring a usable answer
    │   ├── ModelTransportError       no answer, or half of one                   (transient)
    │   │   ├── ModelUnreachableError no connection, so nothing was sent
    │   │   └── ModelTimeoutError     no complete answer within the request's time
    │   ├── ModelOverloadedError      the provider is busy                        (transient)
    │   ├── RateLimitedError          too many requests for now                   (transient)
    │   ├── BudgetReservedError       money left, but calls in flight may need it (transient)
    │   ├── BudgetExceededError       the cap of the run or the day is reached    (pauses)
    │   ├── QuotaExceededError        no money or quota left                      (pauses)
    │   ├── ModelAccessError          key, permission or model name refused       (pauses)
    │   ├── ModelRequestError         the provider rejects this request for good
    │   ├── ContextTooLongError       the prompt does not fit the model
    │   ├── RefusedError              the model declined to answer
    │   ├── TruncatedError            the answer hit the output limit
    │   ├── AnswerTimeoutError        the built-in model did not finish in time
    │   └── InvalidAnswerError        the answer is not what the schema asks for
    ├── AwaitingBatchError            the answer comes with a batch           (transient)
    ├── DeliveryError                 a receiver could not be told that a run ended
    │   └── DeliveryRefusedError      the receiver rejected it permanently
    ├── RegressionError               answers are worse than they were
    ├── LeaseLostError                another process took the work over
    └── RunCancelledError             the run takes nothing more in

Retries look only at the mixin `TransientError`; work that `PausingError` stops waits for a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What a `chordwise` command returns to the shell (docs/command-line.md)."""

    SUCCESS = 0
    INTERNAL = 1
    USAGE = 2
    INCOMPLETE = 3
    UNAVAILABLE = 69
    CONFIGURATION = 78
    DETACHED = 130


class ChordwiseError(Exception):
    """What happened, and what to do about it.

    `code` is stable and stands in tables and logs; the sentence and the hint are for people.
    `usual_hint` is the hint where none is given.
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
        """What the user can do now; empty where there is nothing to say."""
        return str(self.args[1]) or self.usual_hint

    def __str__(self) -> str:
        return self.what


class TransientError(ChordwiseError):
    """Mixin: the same request may succeed later, at the earliest after `retry_after_seconds`.

    `is_throttling` says that the work only waits for its turn: putting it off counts no failure.
    `has_waited` says that a turn was waited for in place already: the work is put off, not repeated
    at once. `reported_limits` is what a provider said of its limits along with its refusal.
    """

    retry_after_seconds: float | None = None
    is_throttling: bool = False
    has_waited: bool = False
    reported_limits: object = None


class PausingError(ChordwiseError):
    """Mixin: every further request would fail alike until a person acts.

    `is_about_key` says that this holds for every model that is asked with the same key.
    """

    is_about_key: bool = False


class InternalError(ChordwiseError):
    """A defect of ours; the log has the details."""


class UsageError(ChordwiseError):
    """The command was asked for something it cannot do."""

    code = "usage"
    exit_code = ExitCode.USAGE


class ConfigurationError(ChordwiseError):
    """A setting is missing, wrong or contradicts another."""

    code = "configuration"
    exit_code = ExitCode.CONFIGURATION


class ServiceUnavailableError(TransientError):
    """Database, broker or embedded stack cannot be reached."""

    code = "service_unavailable"
    exit_code = ExitCode.UNAVAILABLE


class RegressionError(ChordwiseError):
    """Answers are worse than they were, by more than chance explains."""

    code = "regression"
    exit_code = ExitCode.INCOMPLETE
    usual_hint = "Look at what changed: documents, model, prompt. docs/learning.md says how."


class DatabaseRefusedError(ServiceUnavailableError):
    """The database answers, and does not let us work as configured.

    A person has to act. Work that goes on already waits meanwhile, as for a database that is away;
    whatever begins ends with it.
    """

    exit_code = ExitCode.CONFIGURATION


class LeaseLostError(ChordwiseError):
    """The lease ran out and another process took the work over; nothing was written."""

    code = "lease_lost"


class RunCancelledError(ChordwiseError):
    """The run is cancelled: it takes nothing more in, and none of its questions is asked."""

    code = "cancelled"
    exit_code = ExitCode.INCOMPLETE


class AwaitingBatchError(TransientError):
    """The question is asked in a batch; the work goes on when its answer has arrived.

    `retry_after_seconds` is when the wait for it ends. This is no `ModelError`: no other
    model, prompt or tier is tried meanwhile.
    """

    code = "awaiting_batch"
    is_throttling = True
    has_waited = True


class DeliveryError(ChordwiseError):
    """A receiver could not be told that a run ended; the delivery is retried."""

    code = "delivery"


class DeliveryRefusedError(DeliveryError):
    """The receiver rejected the delivery permanently."""

    code = "delivery_refused"


class ReadError(ChordwiseError):
    """A file could not become text; `outcome` is one of `intakes.outcome`, `reason` is finer."""

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
        """A stable code for scripts, such as `needs_ocr`; the outcome where nothing is finer."""
        return str(self.args[3]) or self.outcome


class ModelError(ChordwiseError):
    """A model call did not bring a usable answer."""

    code = "model"
    exit_code = ExitCode.INCOMPLETE


class ModelTransportError(ModelError, TransientError):
    """The connection failed, timed out, or broke off before the answer was complete."""

    code = "model_transport"
    usual_hint = (
        "If this persists, check base_url, the provider's status and any proxies; "
        "then run chordwise retry RUN."
    )


class ModelUnreachableError(ModelTransportError):
    """There was no connection: nothing was sent, so nothing is charged."""


class ModelTimeoutError(ModelTransportError):
    """The request had `granted_seconds`, and its answer was not complete by then.

    No request of the same question begins with less time than that.
    """

    code = "model_timeout"
    usual_hint = (
        "Raise timeout_seconds of the model and retries.total_seconds, run fewer concurrent "
        "calls, or lower pipeline.chunk_tokens; then run chordwise retry RUN."
    )

    def __init__(self, what: str, hint: str = "", *, granted_seconds: float = 0.0) -> None:
        super().__init__(what, hint)
        self.granted_seconds = granted_seconds


def seconds_not_enough(errors: Iterable[ChordwiseError]) -> float:
    """Return the most time that a request of these errors had and did not suffice; 0 for none."""
    return max((e.granted_seconds for e in errors if isinstance(e, ModelTimeoutError)), default=0.0)


def first_transient_or_first(errors: Sequence[ModelError]) -> ModelError:
    """Return the first transient error, without one the first error: the work may be put off."""
    return next((error for error in errors if isinstance(error, TransientError)), errors[0])


class ModelOverloadedError(ModelError, TransientError):
    """The provider is overloaded or broken for now."""

    code = "model_overloaded"
    usual_hint = "Check the provider's status; when it has recovered, run chordwise retry RUN."


class RateLimitedError(ModelError, TransientError):
    """The provider takes no more requests for now."""

    code = "rate_limited"
    is_throttling = True
    usual_hint = (
        "Wait and try again; if this persists, raise the limit at the provider, or lower "
        "max_in_flight of the model."
    )


class BudgetReservedError(ModelError, TransientError):
    """What the budget has left is reserved for calls in flight, which may need less of it."""

    code = "budget_reserved"
    is_throttling = True
    has_waited = True
    usual_hint = (
        "Wait for the calls in flight, or raise the budget: chordwise retry RUN --budget USD, "
        "or budget.usd_per_day."
    )


class BudgetExceededError(ModelError, PausingError):
    """The next request could cost more than the budget of its run or of the day has left."""

    code = "budget_exceeded"
    usual_hint = "Raise the budget: chordwise retry RUN --budget USD, or budget.usd_per_day."


class QuotaExceededError(ModelError, PausingError):
    """The account has no money or quota left; waiting a minute does not help."""

    code = "quota_exceeded"
    usual_hint = "Top up the account or raise its limit at the provider, then retry the run."


class ModelAccessError(ModelError, PausingError):
    """The provider refuses the key, the account, or the model's name."""

    code = "model_access"
    usual_hint = "Check api_key, model and base_url (which usually ends in /v1)."


class ModelRequestError(ModelError):
    """The provider rejects this very request; sending it again cannot help."""

    code = "model_request"
    usual_hint = "Check the model's options and the schema."


class ContextTooLongError(ModelRequestError):
    """Prompt and answer together do not fit the model's context."""

    code = "context_too_long"
    usual_hint = "Lower pipeline.chunk_tokens, or choose a model with a larger context."


class RefusedError(ModelError):
    """The model or the provider's filter declined to answer."""

    code = "refused"
    usual_hint = "Review the document; another model may answer: --model."


class TruncatedError(ModelError):
    """The answer stopped at the output limit and is not complete."""

    code = "truncated"
    usual_hint = (
        "Raise max_output_tokens and max_output_tokens_on_retry of the model, or lower "
        "pipeline.chunk_tokens."
    )


class AnswerTimeoutError(ModelError):
    """The built-in model did not finish its answer in time; asking again would take as long."""

    code = "answer_timeout"
    usual_hint = "Lower pipeline.chunk_tokens, or raise timeout_seconds of the model."


class InvalidAnswerError(ModelError):
    """The answer is not the JSON that the schema asks for, after one repair."""

    code = "invalid_answer"
    usual_hint = "Another model may follow the schema: --model, or fallback in the settings."
