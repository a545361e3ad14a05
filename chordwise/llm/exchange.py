"""The parts of a request and its answer that are the same for all providers over HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from chordwise.domain.addresses import secrets_in
from chordwise.domain.json_values import JsonObject, JsonValue, integer
from chordwise.domain.pictures import Picture
from chordwise.errors import ConfigurationError, ModelAccessError, ModelError
from chordwise.llm.faults import LOWEST_ERROR_STATUS, Kind, read_fault
from chordwise.llm.model import Completion, CompletionRequest
from chordwise.llm.reported_limits import reported_limits
from chordwise.llm.transport import CALL_HEADER, JsonResponse, JsonTransport

KEYLESS_HINT = (
    "No key was sent: set api_key_env of the model to the variable that holds one, and check model "
    "and base_url."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An operation of a provider: its address, and the classification of its errors.

    `codes` and `phrases` are specific to the provider, for `Fault.kind`, and so are `headers`;
    `label` names the model in messages. The key may be empty.
    """

    url: str
    key: SecretStr
    label: str
    timeout_seconds: float
    codes: Mapping[str, Kind]
    phrases: Mapping[str, Kind]
    transport: JsonTransport
    headers: Mapping[str, str] = field(default_factory=dict)

    def complete(
        self, request: CompletionRequest, body: JsonObject, read: Callable[[JsonObject], Completion]
    ) -> Completion:
        """Send the body and return the completion that `read` makes of the answer's body.

        Limits and cost in the headers of the answer are added; that cost replaces the body's.

        Raises:
            ModelError: The answer is an error, or there is none.
        """
        headers = self.with_key()
        if request.call_id:
            headers[CALL_HEADER] = request.call_id
        seconds = request.limit_seconds(self.timeout_seconds)
        response = self.transport.post_json(self.url, headers, body, seconds)
        answer = response.body if isinstance(response.body, dict) else {}
        if response.status >= LOWEST_ERROR_STATUS or answer.get("error"):
            raise self.failure(response, request.user, request.system)
        completion, cost_usd = read(answer), _usd(response.headers.get(COST_HEADER, ""))
        if cost_usd is None:
            cost_usd = completion.reported_cost_usd
        limits = reported_limits(response.headers)
        return replace(completion, limits=limits, reported_cost_usd=cost_usd)

    def with_key(self) -> dict[str, str]:
        """Return the headers, including that of the key."""
        key = self.key.get_secret_value()
        return {**self.headers, **({"authorization": f"Bearer {key}"} if key else {})}

    def failure(self, response: JsonResponse, *prompt: str) -> ModelError:
        """Return the error for an error answer; its text repeats neither the key nor the prompt."""
        fault, key = read_fault(response), self.key.get_secret_value()
        kind = fault.kind(self.codes, self.phrases)
        hint = "" if key or kind is not ModelAccessError else KEYLESS_HINT
        return fault.error(kind, self.label, (key, *secrets_in(self.url), *prompt), hint)


def endpoint(base_url: str, path: str) -> str:
    """Return the address of an operation below `base_url`, which may already contain the path.

    The query (Azure's `api-version`) is kept. The settings reject invalid web addresses.
    """
    parts = urlsplit(base_url.strip())
    base = parts.path.rstrip("/").removesuffix(path)
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
