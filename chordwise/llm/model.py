"""The port to every model: what goes in, what comes out, and what may go wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from chordwise.domain.json_values import JsonObject
from chordwise.domain.pictures import Picture
from chordwise.domain.tasks import AnalysisTask, AnalysisType
from chordwise.domain.tiers import Route
from chordwise.llm.reported_limits import ReportedLimits

EXTRACTIVE = "extractive"
"""The provider's name of the built-in model, which is not a language model."""
UNANSWERED_BY_EXTRACTIVE = frozenset({AnalysisType.REASONING})
"""What takes a language model: whether an argument holds cannot be counted."""

SHORTEST_REQUEST_SECONDS = 1.0
"""With less than this left, a request could not bring an answer."""


class FinishReason(StrEnum):
    """Why a completion ended; stored in `model_calls.finish_reason`."""

    STOP = "stop"
    LENGTH = "length"
    REFUSAL = "refusal"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one completion; `None` where the server did not say.

    `input_tokens` includes those that were read from the provider's cache and those that were
    written into it, whatever the provider's own habit is.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """How long a server computed on a prompt and on an answer, by its own measurement.

    `prompt_tokens` are those that it did not find in its cache.
    """

    prompt_tokens: int
    prompt_seconds: float
    output_tokens: int
    output_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """One question, as a prompt for language models and as a task for those that are none.

    `schema` constrains the answer (JSON Schema, closed objects, every property required);
    `max_output_tokens` bounds it. `pictures` are shown before the text of `user`.
    `attempt` counts the requests for one question from 1.
    `timeout_seconds` is what is left for this request with all its repetitions, where less than the
    model's own timeout and the policy of retries.
    `call_id` names the request in our ledger, and in the provider's logs where those take it.
    `route` says why this model is asked, where routing chose it; the answer does not depend on it.
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

    def within(self, seconds: float) -> float:
        """Return these seconds, or what is left for the request where that is less."""
        return seconds if self.timeout_seconds is None else min(seconds, self.timeout_seconds)

    def after(self, seconds: float) -> CompletionRequest:
        """Return the request with so much less time left for it, a second at least."""
        if self.timeout_seconds is None:
            return self
        left = max(SHORTEST_REQUEST_SECONDS, self.timeout_seconds - seconds)
        return replace(self, timeout_seconds=left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a model returned: `text` is JSON where the server keeps to the schema.

    `service_tier` is the server's own word for how it served the request, which decides the price:
    `flex` and `batch` cost half. `inference_geo` is its word for where it did, which may cost more;
    empty where nothing was said. `reported_cost_usd` is what the server itself says the request
    cost, `None` where it says nothing. `call_id` names the ledger's row of the request, where a
    ledger is kept, and `cache_key` the cached completion where it came from a cache or went into
    it. `limits` is what the provider said of its limits along with the answer, and `timings` what
    llama.cpp measured.
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
    """What the pipeline must know of a model to use it well.

    `context_tokens` bounds prompt and answer together; `max_output_tokens_on_retry` is how far the
    limit of an answer may be raised where it was too low, `None` for not at all.
    `understands_language` is false for the built-in extractive model, which every row and screen
    has to admit.
    """

    provider: str
    model: str
    context_tokens: int
    max_output_tokens: int
    max_output_tokens_on_retry: int | None = None
    understands_language: bool = True

    @property
    def output_ceiling(self) -> int:
        """Return the highest limit that a request to this model may name for its answer."""
        return max(self.max_output_tokens, self.max_output_tokens_on_retry or 0)


class ChatModel(Protocol):
    """A model that answers one request at a time; safe to share between threads."""

    @property
    def profile(self) -> ModelProfile:
        """Return what is known of the model without asking it."""

    def complete(self, request: CompletionRequest) -> Completion:
        """Return the model's answer, whatever its `finish_reason`.

        Raises:
            ModelError: The request brought no answer; the subclass says why.
        """


@dataclass(slots=True, eq=False)
class Middleware:
    """Wraps a model: its profile is that of the model inside, whose errors go through."""

    model: ChatModel

    @property
    def profile(self) -> ModelProfile:
        """Return the profile of the model inside."""
        return self.model.profile
