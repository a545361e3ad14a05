"""One request and its answer, as far as they are the same with every provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from chordwise.domain.addresses import secrets_in
from chordwise.domain.json_values import JsonObject
from chordwise.errors import ConfigurationError, ModelAccessError, ModelError
from chordwise.llm.model import Completion, CompletionRequest
from chordwise.llm.providers.faults import LOWEST_ERROR_STATUS, Fault, Kind, read_fault
from chordwise.llm.reported_limits import ReportedLimits, reported_limits
from chordwise.llm.transport import CALL_HEADER, JsonTransport

KEYLESS_HINT = (
    "No key was sent: set api_key_env of the model to the variable that holds one, and check model "
    "and base_url."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A provider's answer: its object, an empty one where it is none, and what its headers say."""

    body: JsonObject
    limits: ReportedLimits
    reported_cost_usd: Decimal | None = None

    def added_to(self, completion: Completion) -> Completion:
        """Return the completion with what the headers say; a cost there replaces the body's."""
        cost_usd = self.reported_cost_usd
        if cost_usd is None:
            cost_usd = completion.reported_cost_usd
        return replace(completion, limits=self.limits, reported_cost_usd=cost_usd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An operation of a provider: where it is, and what its error answers mean.

    `codes` and `phrases` are the provider's own, for `Fault.kind`; `label` names the model in
    sentences.
    """

    url: str
    key: SecretStr
    label: str
    timeout_seconds: float
    codes: Mapping[str, Kind]
    phrases: Mapping[str, Kind]
    transport: JsonTransport

    def post(
        self, request: CompletionRequest, headers: Mapping[str, str], body: JsonObject
    ) -> Answered:
        """Return the answer.

        Raises:
            ModelError: The answer is an error, or there is none.
        """
        timeout_seconds = min(self.timeout_seconds, request.timeout_seconds or float("inf"))
        named = {**headers, CALL_HEADER: request.call_id} if request.call_id else headers
        response = self.transport.post_json(self.url, named, body, timeout_seconds)
        answer = response.body if isinstance(response.body, dict) else {}
        if response.status >= LOWEST_ERROR_STATUS or answer.get("error"):
            raise self._refusal(read_fault(response), request)
        return Answered(
            body=answer,
            limits=reported_limits(response.headers),
            reported_cost_usd=cost_in_header(response.headers),
        )

    def _refusal(self, fault: Fault, request: CompletionRequest) -> ModelError:
        key = self.key.get_secret_value()
        kind = fault.kind(self.codes, self.phrases)
        hidden = (key, *secrets_in(self.url), request.user, request.system)
        hint = "" if key or kind is not ModelAccessError else KEYLESS_HINT
        return fault.error(kind, self.label, hidden, hint)


def endpoint(base_url: str, path: str) -> str:
    """Return the address of an operation below `base_url`, which may hold the path already.

    A query (Azure's `api-version`) stays. The settings refuse what is no address of a web server.
    """
    parts = urlsplit(base_url.strip())
    base = parts.path.rstrip("/").removesuffix(path)
    return urlunsplit((parts.scheme, parts.netloc, base + path, parts.query, ""))


def checked_key(api_key: SecretStr) -> str:
    """Return the key as a header may carry it.

    Raises:
        ConfigurationError: It holds characters that no key has; a header library would put the
            whole of it into its error.
    """
    key = api_key.get_secret_value().strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(
            "The API key holds characters that no key has.",
            "Copy it again, without quotes, spaces or line breaks.",
        )
    return key


MAX_TOKENS = 1_000_000_000
"""No request has as many; a larger count is an error of the server."""
MAX_REPORTED_USD = Decimal(10_000)
"""No request costs as much: a server that reports more is not believed."""
COST_HEADER = "x-litellm-response-cost"
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")


def child(value: JsonObject, key: str) -> JsonObject:
    """Return the object under `key`; anything else counts as an empty one."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def count(value: JsonObject, key: str) -> int | None:
    """Return the token count under `key`, or `None` where there is no sensible one."""
    found = value.get(key)
    if not isinstance(found, int) or isinstance(found, bool):
        return None
    return found if 0 <= found <= MAX_TOKENS else None


def cost_in_header(headers: Mapping[str, str]) -> Decimal | None:
    """Return the cost in US dollars that LiteLLM's proxy puts into a header of its answers.

    The proxy sends none for a model whose price it does not know.
    """
    return _usd(headers.get(COST_HEADER, ""))


def cost_in_usage(usage: JsonObject) -> Decimal | None:
    """Return the cost in US dollars that OpenRouter puts into `usage` of its answers.

    With a key of the user's own for the provider behind it (`is_byok`), `cost` is OpenRouter's fee
    alone, and what that provider charges stands beside it.
    """
    cost_usd = _number(usage, "cost")
    if usage.get("is_byok") is not True:
        return cost_usd
    charged_usd = _number(child(usage, "cost_details"), "upstream_inference_cost")
    if cost_usd is None or charged_usd is None:
        return None
    return cost_usd + charged_usd


def _number(value: JsonObject, key: str) -> Decimal | None:
    found = value.get(key)
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    return _usd(repr(found)) if is_number else None


def _usd(written: str) -> Decimal | None:
    """Return an amount of dollars; `None` if no request can cost that."""
    if not _NUMBER.fullmatch(written):
        return None
    usd = Decimal(written)
    return usd if usd < MAX_REPORTED_USD else None


def storable(text: str) -> str:
    """Return the text with NUL and each half of a surrogate pair replaced: no table holds them."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()
