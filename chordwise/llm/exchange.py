"""The parts of a request and its answer that are the same for all providers over HTTP."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import ClassVar
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from chordwise.domain.addresses import secrets_in
from chordwise.domain.json_values import JsonObject, JsonValue, integer
from chordwise.domain.pictures import Picture
from chordwise.errors import ConfigurationError, ModelAccessError, ModelError
from chordwise.llm.faults import LOWEST_ERROR_STATUS, Kind, read_fault
from chordwise.llm.model import ChatModel, Completion, CompletionRequest, ModelProfile
from chordwise.llm.reported_limits import reported_limits
from chordwise.llm.transport import CALL_HEADER, JsonResponse, JsonTransport
from chordwise.settings import ModelSettings

KEYLESS_HINT = (
    "No key was sent: set api_key_env of the model to the variable that holds one, and check model "
    "and base_url."
)


class HttpModel(ChatModel, ABC):
    """A model behind an operation of an API; the key may be empty for servers that require none.

    `endings` are the path of the operation, and other ends of an address that stand before it.
    `codes` and `phrases` are the errors of the API, for `Fault.kind`.
    """

    public_base_url: ClassVar[str]
    endings: ClassVar[tuple[str, ...]]
    codes: ClassVar[Mapping[str, Kind]]
    phrases: ClassVar[Mapping[str, Kind]]
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, settings: ModelSettings, api_key: SecretStr, transport: JsonTransport | None = None
    ) -> None:
        self.settings = settings
        self.key = checked_key(api_key)
        self.label = f"{settings.provider}/{settings.model}"
        self.transport = transport or JsonTransport()

    @property
    def profile(self) -> ModelProfile:
        """Return the profile from the settings of the model."""
        return ModelProfile(
            provider=self.settings.provider,
            model=self.settings.model,
            context_tokens=self.settings.context_tokens,
            max_output_tokens=self.settings.max_output_tokens,
            max_output_tokens_on_retry=self.settings.output_ceiling,
        )

    @abstractmethod
    def body(self, request: CompletionRequest) -> JsonObject:
        """Return the JSON that `complete` sends."""

    @abstractmethod
    def completion(self, body: JsonObject) -> Completion:
        """Parse an answer of the API.

        Raises:
            ModelError: It contains no completion.
        """

    def complete(self, request: CompletionRequest) -> Completion:
        """Send one request.

        Limits and cost in the headers of the answer are added; that cost replaces the body's.

        Raises:
            ModelError: The answer is an error, or there is none.
        """
        url, headers = self.address(self.endings[0]), self.with_key()
        if request.call_id:
            headers[CALL_HEADER] = request.call_id
        seconds = request.limit_seconds(self.settings.timeout_seconds)
        response = self.transport.post_json(url, headers, self.body(request), seconds)
        answer = response.body if isinstance(response.body, dict) else {}
        if response.status >= LOWEST_ERROR_STATUS or answer.get("error"):
            raise self.failure(response, request.user, request.system)
        completion, cost_usd = self.completion(answer), _usd(response.headers.get(COST_HEADER, ""))
        if cost_usd is None:
            cost_usd = completion.reported_cost_usd
        limits = reported_limits(response.headers)
        return replace(completion, limits=limits, reported_cost_usd=cost_usd)

    def address(self, path: str) -> str:
        """Return the address of an operation at the server of the settings."""
        return endpoint(self.settings.base_url or self.public_base_url, path, *self.endings)

    def with_key(self) -> dict[str, str]:
        """Return the headers, including that of the key."""
        key = self.key.get_secret_value()
        return {**self.headers, **({"authorization": f"Bearer {key}"} if key else {})}

    def failure(self, response: JsonResponse, *prompt: str) -> ModelError:
        """Return the error for an error answer; its text repeats neither the key nor the prompt."""
        fault, key = read_fault(response), self.key.get_secret_value()
        kind = fault.kind(self.codes, self.phrases)
        hint = "" if key or kind is not ModelAccessError else KEYLESS_HINT
        secrets = (key, *secrets_in(self.settings.base_url), *prompt)
        return fault.error(kind, self.label, secrets, hint)


def endpoint(base_url: str, path: str, *endings: str) -> str:
    """Return the address of an operation below `base_url`, which may have one of the endings.

    The query (Azure's `api-version`) is kept. The settings reject invalid web addresses.
    """
    parts = urlsplit(base_url.strip())
    base = parts.path.rstrip("/")
    for ending in endings:
        base = base.removesuffix(ending)
    return urlunsplit((parts.scheme, parts.netloc, base + path, parts.query, ""))


def checked_key(api_key: SecretStr) -> SecretStr:
    """Return the key in a form that is valid in a header.

    Raises:
        ConfigurationError: It contains characters that no key has; the HTTP library would put the
            whole key into its error.
    """
    key = api_key.get_secret_value().strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(
            "The API key contains invalid characters.",
            "Copy it again, without quotes, spaces or line breaks.",
        )
    return SecretStr(key)


MAX_TOKENS = 1_000_000_000
"""The largest plausible token count; a larger one is an error of the server."""
MAX_REPORTED_USD = Decimal(10_000)
"""Reported costs from this amount upward are implausible and are ignored."""
COST_HEADER = "x-litellm-response-cost"
"""US dollars, in answers of LiteLLM's proxy; missing if it does not know the model's price."""
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")


def child(value: JsonObject, key: str) -> JsonObject:
    """Return the object under `key`, or an empty one if there is no object."""
    member = value.get(key)
    return member if isinstance(member, dict) else {}


def count(value: JsonObject, key: str) -> int | None:
    """Return the token count under `key`, or `None` if it is missing or implausible."""
    number = integer(value.get(key))
    return number if number is not None and 0 <= number <= MAX_TOKENS else None


def cost_in_usage(usage: JsonObject) -> Decimal | None:
    """Return the cost in US dollars from the `usage` of OpenRouter's answers.

    With the user's own key for the upstream provider (`is_byok`), `cost` is only OpenRouter's fee,
    and the upstream provider's charge is added to it.
    """
    cost_usd = _number(usage, "cost")
    if usage.get("is_byok") is not True:
        return cost_usd
    charged_usd = _number(child(usage, "cost_details"), "upstream_inference_cost")
    if cost_usd is None or charged_usd is None:
        return None
    return cost_usd + charged_usd


def _number(value: JsonObject, key: str) -> Decimal | None:
    number = value.get(key)
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return _usd(repr(number)) if is_number else None


def _usd(written: str) -> Decimal | None:
    """Return an amount in US dollars; `None` if it is malformed or implausible for a request."""
    if not _NUMBER.fullmatch(written):
        return None
    usd = Decimal(written)
    return usd if usd < MAX_REPORTED_USD else None


def content_of(request: CompletionRequest, shown: Callable[[Picture], JsonObject]) -> JsonValue:
    """Return the text of a request, after its pictures in the provider's format (`shown`)."""
    if not request.pictures:
        return request.user
    pictures: list[JsonValue] = [shown(picture) for picture in request.pictures]
    return [*pictures, {"type": "text", "text": request.user}]


def storable(text: str) -> str:
    """Return the text with NUL and lone surrogates replaced, which PostgreSQL cannot store."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()
