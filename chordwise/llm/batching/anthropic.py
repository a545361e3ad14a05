"""Message Batches, the Batch API of Anthropic."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta

from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject, objects, text
from chordwise.errors import ModelError, ModelOverloadedError, ModelTransportError
from chordwise.llm.batching import (
    BatchPhase,
    BatchState,
    HttpBatches,
    LineOutcome,
    PreparedBatch,
    counts,
    moment,
)
from chordwise.llm.exchange import child, storable
from chordwise.llm.model import Completion
from chordwise.llm.providers.anthropic import AnthropicModel
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings

# The status of an invalid request, which has no specific code.
_BAD_REQUEST = 400
_PAGES = 20
_CLOCK_SKEW = timedelta(minutes=5)
_NOT_RUN: Mapping[str, str] = {
    "expired": "before its batch expired",
    "canceled": "because its batch was cancelled",
}


class AnthropicBatches(HttpBatches):
    """Messages in batches: part of the creation request, and identified only by their ids."""

    path = "/v1/messages/batches"

    def __init__(
        self, settings: ModelSettings, api_key: SecretStr, transport: JsonTransport
    ) -> None:
        super().__init__(AnthropicModel(settings, api_key, transport))

    def upload(self, batch: PreparedBatch) -> str:  # noqa: ARG002 - there is no such step here
        """Do nothing: the lines are part of the creation request."""
        return ""

    def create(self, batch: PreparedBatch) -> BatchState:
        """Create the batch."""
        body: JsonObject = {
            "requests": [{"custom_id": line.custom_id, "params": line.body} for line in batch.lines]
        }
        content = json.dumps(body, ensure_ascii=False).encode(errors="replace")
        return self._state(self._begin(self.path, content, "application/json"))

    def find(self, batch: PreparedBatch, known: Collection[str]) -> BatchState | None:
        """Return the oldest unknown batch that is not older than this one and has the same size."""
        oldest = None
        for listed in self._listed():
            created_at = moment(listed.get("created_at"))
            if created_at is None or created_at < batch.prepared_at - _CLOCK_SKEW:
                break
            state = self._state(listed)
            is_ours = sum(state.counts.values()) == len(batch.lines)
            if is_ours and state.provider_id not in known:
                oldest = state
        return oldest

    def results(self, state: BatchState) -> Iterator[LineOutcome]:
        """Yield the lines."""
        for line in self.lines(f"{self.path}/{state.provider_id}/results"):
            result = child(line, "result")
            yield LineOutcome(custom_id=text(line.get("custom_id")), outcome=self._outcome(result))

    def delete(self, provider_id: str, upload: str) -> None:  # noqa: ARG002 - there is no file
        """Delete the batch with its answers."""
        if provider_id:
            self._delete(f"{self.path}/{provider_id}")

    def _listed(self) -> Iterator[JsonObject]:
        query = "limit=100"
        for _ in range(_PAGES):
            page = self._get(self.path, query)
            yield from objects(page.get("data"))
            last = text(page.get("last_id"))
            if page.get("has_more") is not True or not last:
                return
            query = f"limit=100&after_id={last}"

    def _state(self, answer: JsonObject) -> BatchState:
        status = text(answer.get("processing_status"))
        provider_id = text(answer.get("id"))
        if not provider_id:
            raise ModelTransportError(
                f"{self.model.label} responded with JSON that is not a batch.",
                "Check that base_url is the address of an API with Message Batches.",
            )
        return BatchState(
            provider_id=provider_id,
            phase=BatchPhase.ENDED if status == "ended" else BatchPhase.RUNNING,
            status=storable(status),
            counts=counts(child(answer, "request_counts")),
            expires_at=moment(answer.get("expires_at")),
        )

    def _outcome(self, result: JsonObject) -> Completion | ModelError:
        kind = text(result.get("type"))
        if kind in _NOT_RUN:
            return ModelOverloadedError(f"{self.model.label} gave no answer {_NOT_RUN[kind]}.")
        try:
            if kind == "succeeded":
                return self.model.completion(child(result, "message"))
        except ModelError as error:
            return error
        reported = child(result, "error")
        return self._refusal(child(reported, "error") or reported, _BAD_REQUEST)


BATCH_API = AnthropicBatches
