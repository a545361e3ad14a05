"""The `ChatModel` interface, with its requests, completions and profiles."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from chordwise.domain import tokens
from chordwise.domain.analysis_tasks import AnalysisTask
from chordwise.domain.json_values import JsonObject
from chordwise.domain.pictures import Picture
from chordwise.domain.tiers import Route
from chordwise.llm.limits.permits import ReportedLimits

EXTRACTIVE = "extractive"
"""The provider name of the built-in model, which is not a language model."""

MIN_REQUEST_SECONDS = 1.0
"""With less time left, a request could not return an answer."""


class FinishReason(StrEnum):
    """Why a completion ended; stored in `model_calls.finish_reason`."""

    STOP = "stop"
    LENGTH = "length"
    REFUSAL = "refusal"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one completion; `None` where the server did not report them.

    `input_tokens` includes the tokens that were read from the provider's cache and those that were
    written to it, regardless of the provider's own convention.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """The server's own measurements of processing a prompt and generating an answer.

    `prompt_tokens` excludes the tokens that were in the server's cache.
    """

    prompt_tokens: int
    prompt_seconds: float
    output_tokens: int
    output_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """One question: a prompt for language models, and a task for the built-in model.

    `schema` constrains the answer (JSON Schema, closed objects, every property required);
    `max_output_tokens` bounds it. `pictures` precede the text of `user`. `attempt` counts the
    requests for one question from 1. `timeout_seconds` is the time left for this request with all
    its retries, if it is less than the model's own timeout and the retry policy allow. `call_id`
    identifies the request in the ledger, and in the logs of providers that accept it. `route` is
    the reason why routing chose this model; the answer does not depend on it. `question` is the key
    under which others wait for the answer, empty if it is not shared.
    """

    task: AnalysisTask
    system: str
    user: str
    schema: JsonObject
    schema_name: str
    prompt_version: str
    max_output_tokens: int
    pictures: tuple[Picture, ...] = ()
    attempt: int = 1
    timeout_seconds: float | None = None
    call_id: str = ""
    route: Route | None = None
    question: str = ""

    @property
    def estimated_tokens(self) -> float:
        """The tokens of the prompt's texts, without its schema, and at most those of pictures."""
        shown = sum(picture.max_tokens for picture in self.pictures)
        return tokens.weigh(self.system) + tokens.weigh(self.user) + shown

    def limit_seconds(self, seconds: float) -> float:
        """Return the smaller of `seconds` and the time left for the request."""
        return seconds if self.timeout_seconds is None else min(seconds, self.timeout_seconds)

    def with_less_time(self, seconds: float) -> CompletionRequest:
        """Return the request with `seconds` less time left, but at least one second."""
        if self.timeout_seconds is None:
            return self
        left = max(MIN_REQUEST_SECONDS, self.timeout_seconds - seconds)
        return replace(self, timeout_seconds=left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A model's answer; `text` is JSON if the server follows the schema.

    `service_tier` is the tier that the server reports, which determines the price: `flex` and
    `batch` cost half. `inference_geo` is the region that the server reports, which may cost more.
    Both are empty if the server reports nothing. `reported_cost_usd` is the cost that the server
    reports, or `None`. `call_id` is the request's row in the ledger, if there is a ledger.
    `cache_key` is the key of the cached completion, if it was read from the cache or stored in it.
    `limits` are the rate limits that the provider reported with the answer; `timings` are
    llama.cpp's measurements.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    provider: str
    model: str
    response_id: str = ""
    refusal: str = ""
    service_tier: str = ""
    inference_geo: str = ""
    reported_cost_usd: Decimal | None = None
    call_id: str = ""
    cache_key: str = ""
    limits: ReportedLimits = field(default_factory=dict, compare=False)
    timings: Timings | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """The properties of a model that the pipeline depends on.

    `context_tokens` bounds prompt and answer together. `max_output_tokens_on_retry` is the output
    limit for the retry of a truncated answer, or `None` if the limit may not be raised.
    `understands_language` is false for the built-in extractive model; results and pages have to
    state this.
    """

    provider: str
    model: str
    context_tokens: int
    max_output_tokens: int
    max_output_tokens_on_retry: int | None = None
    understands_language: bool = True

    @property
    def output_ceiling(self) -> int:
        """Return the highest output limit that a request to this model may have."""
        return max(self.max_output_tokens, self.max_output_tokens_on_retry or 0)


class ChatModel(Protocol):
    """A model that answers one request at a time; safe to share between threads."""

    @property
    def profile(self) -> ModelProfile:
        """Return the profile of the model, without a request."""

    def complete(self, request: CompletionRequest) -> Completion:
        """Return the model's answer, whatever its `finish_reason`.

        Raises:
            ModelError: The request brought no answer; the subclass says why.
        """


@dataclass(slots=True, eq=False)
class Middleware:
    """Wraps a model: it has the profile of the wrapped model and propagates its errors."""

    model: ChatModel

    @property
    def profile(self) -> ModelProfile:
        """Return the profile of the wrapped model."""
        return self.model.profile
