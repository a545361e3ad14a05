"""Chat Completions, the API of OpenAI, Azure, vLLM, llama.cpp, Ollama, LM Studio and gateways."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import PurePath

import structlog
from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject, JsonValue, objects, text
from chordwise.domain.pictures import MEDIA_TYPE, Picture
from chordwise.errors import (
    ContextTooLongError,
    InvalidAnswerError,
    ModelAccessError,
    ModelError,
    ModelOverloadedError,
    ModelRequestError,
    ModelTransportError,
    QuotaExceededError,
    RateLimitedError,
    RefusedError,
)
from chordwise.llm.exchange import (
    LOWEST_ERROR_STATUS,
    HttpModel,
    Kind,
    child,
    content_of,
    cost_in_usage,
    count,
    endpoint,
    storable,
)
from chordwise.llm.model import (
    ChatModel,
    Completion,
    CompletionRequest,
    FinishReason,
    Middleware,
    Timings,
    Usage,
)
from chordwise.llm.provider import Provider
from chordwise.llm.schema_dialects import as_instruction, for_openai_strict
from chordwise.llm.token_counts import TokenCounter, openai_counter
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings
from chordwise.settings.service_addresses import is_at_provider

log = structlog.get_logger(__name__)

PUBLIC_BASE_URL = "https://api.openai.com/v1"
MAX_SCHEMA_NAME_CHARACTERS = 64
_MAX_MILLISECONDS = 1e9
USUAL_TIER = "default"
"""Standard price and speed. Without a tier, the project's tier applies, which may cost more."""

CODES: Mapping[str, Kind] = {
    "insufficient_quota": QuotaExceededError,
    "credit_balance_exhausted": QuotaExceededError,
    "organization_spend_limit_exceeded": QuotaExceededError,
    "project_spend_limit_exceeded": QuotaExceededError,
    "organization_usage_limit_exceeded": QuotaExceededError,
    "billing_not_active": QuotaExceededError,
    "billing_hard_limit_reached": QuotaExceededError,
    # LiteLLM's proxy: its own budget is exceeded, reported with 422, 429 or 400.
    "budget_exceeded": QuotaExceededError,
    "context_length_exceeded": ContextTooLongError,
    "exceed_context_size_error": ContextTooLongError,
    "string_above_max_length": ContextTooLongError,
    "content_filter": RefusedError,
    "content_policy_violation": RefusedError,
    "responsibleaipolicyviolation": RefusedError,
    "invalid_prompt": RefusedError,
    "invalid_api_key": ModelAccessError,
    "account_deactivated": ModelAccessError,
    "model_not_found": ModelAccessError,
    "deploymentnotfound": ModelAccessError,
    "notfounderror": ModelAccessError,
    "slow_down": RateLimitedError,
    "rate_limit_error": RateLimitedError,
    "server_is_overloaded": ModelOverloadedError,
    "overloaded_error": ModelOverloadedError,
    "unavailable_error": ModelOverloadedError,
    "capacity_exceeded": ModelOverloadedError,
    "serviceunavailableerror": ModelOverloadedError,
    # LiteLLM's proxy: a 429, whatever the original error was.
    "all_deployments_in_cooldown": ModelOverloadedError,
}

# For servers that send no code, or the same code for every error.
PHRASES: Mapping[str, Kind] = {
    "maximum context length": ContextTooLongError,
    "context window": ContextTooLongError,
    "context size": ContextTooLongError,
    "context the overflows": ContextTooLongError,
    "prompt is too long": ContextTooLongError,
    # A 429 for a request that alone exceeds the tokens per minute: a retry cannot succeed.
    "request too large for": ContextTooLongError,
    # LiteLLM's proxy answers 400 if it does not know the model, or does not know the key and
    # has no database of keys; if its database is unavailable, it answers 503 with another text.
    "invalid model name passed in": ModelAccessError,
    "no connected db": ModelAccessError,
    # It does not forward codes. Its own prefix is part of the phrase, because Gemini uses the
    # same text for its limits per minute.
    "openaiexception - you exceeded your current quota": QuotaExceededError,
    # Errors that it recognizes for every provider.
    "litellm.contextwindowexceedederror": ContextTooLongError,
    "litellm.contentpolicyviolationerror": RefusedError,
    # llama.cpp answers 500 if the model does not support pictures.
    "image input is not supported": ModelRequestError,
    # llama.cpp answers 500 if the model's output violates the chat format.
    "does not match the expected peg": InvalidAnswerError,
}

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "content_filter": FinishReason.REFUSAL,
}


class OpenAIModel(HttpModel):
    """A model behind a Chat Completions endpoint.

    The setting `structured_output` names what the server can enforce; anything else goes into the
    prompt as an instruction.
    """

    public_base_url = PUBLIC_BASE_URL
    endings = ("/chat/completions",)
    codes = CODES
    phrases = PHRASES

    def body(self, request: CompletionRequest) -> JsonObject:
        """Return the JSON of a chat completion."""
        limit = min(request.max_output_tokens, self.settings.output_ceiling)
        response_format = self._response_format(request)
        enforced = response_format.get("type") == "json_schema"
        instruction = "" if enforced else as_instruction(request.schema)
        body: JsonObject = {
            "model": self.settings.model,
            "messages": _messages(request, instruction),
            self.settings.max_tokens_field: limit,
        }
        if response_format:
            body["response_format"] = response_format
        if self.settings.temperature is not None:
            body["temperature"] = self.settings.temperature
        if self._is_public:
            # Requests with the same instructions reach the same prompt cache.
            instructions = hashlib.sha256(request.system.encode())
            body["prompt_cache_key"] = instructions.hexdigest()[:32]
        tier = self.settings.service_tier or (USUAL_TIER if self._is_public else "")
        if tier:
            body["service_tier"] = tier
        return body

    @property
    def _is_public(self) -> bool:
        """Return whether this is OpenAI itself; other servers may reject unknown fields."""
        return is_at_provider("openai", self.settings.base_url)

    def _response_format(self, request: CompletionRequest) -> JsonObject:
        """Return the strictest response format that the server supports for this schema."""
        is_object = request.schema.get("type") == "object"
        if self.settings.structured_output == "none" or not is_object:
            return {}
        if self.settings.structured_output == "json_object":
            return {"type": "json_object"}
        schema, strict = self._dialect(request.schema)
        name = _schema_name(request.schema_name)
        return {
            "type": "json_schema",
            "json_schema": {"name": name, "strict": strict, "schema": schema},
        }

    def _dialect(self, schema: JsonObject) -> tuple[JsonObject, bool]:
        strict = for_openai_strict(schema)
        return (schema, False) if strict is None else (strict, True)

    def completion(self, body: JsonObject) -> Completion:
        """Parse a chat completion.

        Raises:
            ModelError: It is none.
        """
        choices = objects(body.get("choices"))
        message = choices[0].get("message") if choices else None
        if not isinstance(message, dict):
            raise ModelTransportError(
                f"{self.label} responded with JSON that is not a completion.",
                "Check that base_url is the address of a Chat Completions API.",
            )
        reason = text(choices[0].get("finish_reason"))
        if reason == "error":
            raise ModelOverloadedError(f"{self.label} interrupted its response.")
        refusal = storable(_refusal(message))
        finish_reason = _FINISH_REASONS.get(reason, FinishReason.OTHER)
        return Completion(
            text=storable(_content(message)),
            finish_reason=FinishReason.REFUSAL if refusal else finish_reason,
            usage=_usage(child(body, "usage")),
            provider=self.settings.provider,
            model=_served(body) or self.settings.model,
            response_id=storable(text(body.get("id"))),
            refusal=refusal,
            service_tier=storable(text(body.get("service_tier"))),
            reported_cost_usd=cost_in_usage(child(body, "usage")),
            timings=_timings(child(body, "timings")),
        )


class OpenAI(Provider):
    """Chat Completions at OpenAI's public address, or at the `base_url` of another server."""

    host = "api.openai.com"

    def connect(
        self, settings: ModelSettings, api_key: SecretStr, transport: JsonTransport | None
    ) -> ChatModel:
        """Return the model, kept loaded by Ollama if the settings say so."""
        return with_keep_alive(OpenAIModel(settings, api_key, transport))

    def has_service_tiers(self, settings: ModelSettings) -> bool:
        """Return whether this is OpenAI itself; others ignore tiers."""
        return is_at_provider("openai", settings.base_url)

    def token_counter(self, settings: ModelSettings) -> TokenCounter:
        """Return the counter for the vocabulary of OpenAI, or for that of a model with a name."""
        return openai_counter(settings.model, is_public=self.has_service_tiers(settings))


PROVIDER = OpenAI()


def _messages(request: CompletionRequest, instruction: str) -> list[JsonValue]:
    # Every server supports “system”; only OpenAI's models support its synonym “developer”.
    system = "\n\n".join(part for part in (request.system, instruction) if part)
    first: list[JsonValue] = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": content_of(request, _shown)}]


def _shown(picture: Picture) -> JsonObject:
    return {"type": "image_url", "image_url": {"url": f"data:{MEDIA_TYPE};base64,{picture.base64}"}}


def _schema_name(name: str) -> str:
    """Return the name with the characters and the length that the API allows."""
    allowed = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)
    return allowed[:MAX_SCHEMA_NAME_CHARACTERS] or "answer"


def _served(body: JsonObject) -> str:
    """Return the name of the model that answered; the file name, if llama.cpp reports a path."""
    name = storable(text(body.get("model")))
    return PurePath(name).name if name.endswith(".gguf") else name


def _content(message: JsonObject) -> str:
    """Return the text, which some servers send in parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(text(part.get("text")) for part in objects(content))


def _refusal(message: JsonObject) -> str:
    parts = objects(message.get("content"))
    return text(message.get("refusal")) or "".join(text(part.get("refusal")) for part in parts)


def _usage(usage: JsonObject) -> Usage:
    details = child(usage, "prompt_tokens_details")
    return Usage(
        input_tokens=count(usage, "prompt_tokens"),
        output_tokens=count(usage, "completion_tokens"),
        cached_input_tokens=count(details, "cached_tokens"),
        cache_write_tokens=count(details, "cache_write_tokens"),
    )


def _timings(timings: JsonObject) -> Timings | None:
    """Return llama.cpp's measurements; `None` for other servers."""
    read, written = count(timings, "prompt_n"), count(timings, "predicted_n")
    reading, writing = _seconds(timings, "prompt_ms"), _seconds(timings, "predicted_ms")
    if read is None or written is None or reading is None or writing is None:
        return None
    return Timings(
        prompt_tokens=read,
        prompt_seconds=reading,
        output_tokens=written,
        output_seconds=writing,
    )


def _seconds(timings: JsonObject, name: str) -> float | None:
    value = timings.get(name)
    if not isinstance(value, int | float) or not 0 <= value <= _MAX_MILLISECONDS:
        return None
    return value / 1000


_UNLIMITED = "-1"
_KEEP_ALIVE_SECONDS = 10.0
_MAX_INTERVAL_SECONDS = 60.0
_UNITS: Mapping[str, int] = {"s": 1, "m": 60, "h": 3_600}


def with_keep_alive(model: HttpModel) -> ChatModel:
    """Return the model, wrapped to send `keep_alive` to Ollama if its settings have it.

    Ollama's Chat Completions ignore this field (github.com/ollama/ollama/issues/3645). A loaded
    model keeps the last duration that it was given; a native request without a prompt sets it
    without generating an answer.
    """
    settings = model.settings
    if not settings.keep_alive:
        return model
    url = endpoint(settings.base_url, "/api/generate", *model.endings, "/v1")
    # The native API requires a unit in a string, but not in a number.
    duration: JsonValue = -1 if settings.keep_alive == _UNLIMITED else settings.keep_alive

    def send() -> None:
        body = {"model": settings.model, "keep_alive": duration}
        response = model.transport.post_json(url, model.with_key(), body, _KEEP_ALIVE_SECONDS)
        if response.status >= LOWEST_ERROR_STATUS:
            raise ModelRequestError(
                f"The server of {settings.model} answered keep_alive with {response.status}.",
                "keep_alive is for Ollama; remove it for other servers.",
            )

    return KeptLoaded(model, send, interval_seconds(settings))


def interval_seconds(settings: ModelSettings) -> float:
    """Return the interval of the request; a reloaded model has the default of its server again."""
    if settings.keep_alive == _UNLIMITED:
        return _MAX_INTERVAL_SECONDS
    length = int(settings.keep_alive[:-1]) * _UNITS[settings.keep_alive[-1]]
    return min(_MAX_INTERVAL_SECONDS, length / 2)


class KeptLoaded(Middleware):
    """Calls `send` after an answer, at most once per `interval_seconds`.

    The call follows the answer because the model is certainly loaded then; before it, `send` would
    wait for the model to load. The first failure of `send` is logged; failures never affect the
    answer.
    """

    def __init__(
        self,
        model: ChatModel,
        send: Callable[[], None],
        interval_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(model)
        self._send = send
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._due_at = clock()
        self._has_failed = False

    def complete(self, request: CompletionRequest) -> Completion:
        """Return the answer of the model; then call `send` if it is due."""
        completion = self.model.complete(request)
        with self._lock:
            now = self._clock()
            is_due = now >= self._due_at
            self._due_at = now + self._interval_seconds if is_due else self._due_at
        try:
            if is_due:
                self._send()
        except ModelError as error:
            if not self._has_failed:
                log.warning("model.keep_alive_failed", model=self.profile.model, reason=error.what)
            self._has_failed = True
        return completion
