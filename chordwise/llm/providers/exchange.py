"""One request and its answer, as far as they are the same with every provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from pydantic import SecretStr

from chordwise.domain.addresses import secrets_in
from chordwise.domain.json_values import JsonObject
from chordwise.errors import ModelAccessError, ModelError
from chordwise.llm.model import Completion, CompletionRequest
from chordwise.llm.providers.faults import LOWEST_ERROR_STATUS, Fault, Kind, read_fault
from chordwise.llm.providers.reading import cost_in_header
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
