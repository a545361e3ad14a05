"""A Batch API without a network: the interface `BatchApi` over a provider controlled by a test."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject
from chordwise.errors import (
    ContextTooLongError,
    ModelAccessError,
    ModelError,
    ModelOverloadedError,
    ModelRequestError,
    ModelTransportError,
    QuotaExceededError,
    RateLimitedError,
    TransientError,
)
from chordwise.llm.batching import BatchPhase, BatchState, LineOutcome, PreparedBatch
from chordwise.llm.batching.openai import file_of
from chordwise.llm.model import Completion, CompletionRequest
from chordwise.llm.providers.openai import OpenAIModel
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings
from tests.peers.answering_server import completion, summary
from tests.peers.batch_provider import (
    ANSWERED,
    EXPIRED,
    GARBLED,
    INVALID,
    MISSING,
    OVERLONG,
    BatchProvider,
    FakeBatch,
    question_of,
)

_NOT_THERE = (404, 405, 501)
_STATUSES = {
    400: ModelRequestError,
    401: ModelAccessError,
    **dict.fromkeys(_NOT_THERE, ModelAccessError),
    413: ContextTooLongError,
    429: RateLimitedError,
}
_REFUSALS = {
    "billing_hard_limit_reached": QuotaExceededError,
    "token_limit_exceeded": RateLimitedError,
}
_DAY = timedelta(days=1)


class InMemoryBatches:
    """Implements `BatchApi`; questions and answers have OpenAI's format."""

    def __init__(self, provider: BatchProvider) -> None:
        self._provider = provider
        settings = ModelSettings(provider="openai", model="peer", base_url="http://127.0.0.1:9/v1")
        self._model = OpenAIModel(settings, SecretStr("key"), JsonTransport())
        self._prepared: dict[str, str] = {}

    def body(self, request: CompletionRequest) -> JsonObject:
        return self._model.body(request)

    def upload(self, batch: PreparedBatch) -> str:
        self._begin("upload")
        return f"file-{batch.marker}"

    def create(self, batch: PreparedBatch) -> BatchState:
        """Accept the batch; the response is lost if the test demands it."""
        self._begin("create")
        lines = [json_values.as_object(json.loads(line)) for line in _lines(batch)]
        created = self._provider.open_batch(lines, metadata={"marker": batch.marker})
        if self._provider.loses_answer:
            self._provider.loses_answer = False
            raise ModelTransportError("The connection broke off.")
        return self._state(created)

    def find(self, batch: PreparedBatch, known: Collection[str]) -> BatchState | None:
        self._begin("find")
        return next(
            (
                self._state(stored)
                for stored in self._provider.batches
                if stored.metadata.get("marker") == batch.marker and stored.id not in known
            ),
            None,
        )

    def retrieve(self, provider_id: str) -> BatchState:
        """Return the state of the batch; it has ended if it was released or cancelled."""
        self._begin("retrieve")
        batch = self._batch(provider_id)
        self._provider.settle(batch)
        return self._state(batch)

    def results(self, state: BatchState) -> Iterator[LineOutcome]:
        """Yield the existing lines in reverse order."""
        self._begin("results")
        batch = self._batch(state.provider_id)
        for line, fate in reversed(list(zip(batch.lines, batch.fates or [], strict=True))):
            if fate not in {MISSING, GARBLED, OVERLONG}:
                custom_id = json_values.text(line["custom_id"])
                yield LineOutcome(custom_id=custom_id, outcome=self._outcome(line, fate))

    def cancel(self, provider_id: str) -> None:
        """Make the batch end at the next `retrieve`."""
        self._begin("cancel")
        self._batch(provider_id).is_cancelled = True

    def delete(self, provider_id: str, upload: str) -> None:  # noqa: ARG002 - as in the port
        """Delete the batch; its file exists only in a test of the servers."""
        self._begin("delete")
        self._provider.batches = [b for b in self._provider.batches if b.id != provider_id]

    def _begin(self, operation: str) -> None:
        """Count the operation; raise an error if the test demands it."""
        self._provider.asked[operation] += 1
        status = self._provider.statuses.get(operation)
        if status is not None:
            what = "The model has no Batch API." if status in _NOT_THERE else f"It says {status}."
            error = _STATUSES.get(status, ModelOverloadedError)(what)
            if isinstance(error, TransientError):
                error.retry_after_seconds = self._provider.retry_after or None
            raise error

    def _batch(self, provider_id: str) -> FakeBatch:
        if self._provider.is_forgetful:
            raise ModelAccessError("There is no such batch.")
        return next(batch for batch in self._provider.batches if batch.id == provider_id)

    def _state(self, batch: FakeBatch) -> BatchState:
        refused = _REFUSALS.get(batch.refusal, ModelRequestError)(f"It is {batch.refusal}.")
        phase = BatchPhase.ENDED if batch.fates is not None else BatchPhase.RUNNING
        return BatchState(
            provider_id=batch.id,
            phase=BatchPhase.FAILED if batch.refusal else phase,
            status="failed" if batch.refusal else phase.value,
            counts={"total": len(batch.lines), "completed": (batch.fates or []).count(ANSWERED)},
            expires_at=datetime.fromtimestamp(batch.created_at, UTC) + _DAY,
            error=refused if batch.refusal else None,
        )

    def _outcome(self, line: JsonObject, fate: str) -> Completion | ModelError:
        if fate in {ANSWERED, INVALID}:
            content = summary(question_of(line)) if fate == ANSWERED else "This is no JSON."
            return self._model.completion(completion(content))
        if fate == EXPIRED:
            return ModelOverloadedError("It could not be run in time.")
        return _STATUSES.get(int(fate), ModelOverloadedError)("It is refused.")


def _lines(batch: PreparedBatch) -> list[bytes]:
    return file_of(batch.lines).splitlines()
