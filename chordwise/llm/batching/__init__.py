"""The interface of Batch APIs, which answer many questions later, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject
from chordwise.errors import ConfigurationError, ModelError
from chordwise.kinds import Kinds
from chordwise.llm.model import Completion, CompletionRequest
from chordwise.llm.transport import JsonTransport
from chordwise.settings import ModelSettings
from chordwise.settings.providers import is_at_provider


class BatchPhase(StrEnum):
    """The phase of a batch: still running, ended with results, or rejected as a whole."""

    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """One question of a batch; `custom_id` is unique and has at most 64 characters."""

    custom_id: str
    body: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedBatch:
    """A batch to submit; `marker` is our id of it, `upload` that of its file, if it has one."""

    marker: str
    prepared_at: datetime
    lines: Sequence[BatchLine]
    upload: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchState:
    """The state of a batch at the provider; `status` and `counts` are the provider's own values."""

    provider_id: str
    phase: BatchPhase
    status: str
    counts: Mapping[str, int] = field(default_factory=dict)
    expires_at: datetime | None = None
    files: tuple[str, ...] = ()
    error: ModelError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LineOutcome:
    """The outcome of one question; after a `TransientError` it may be submitted again."""

    custom_id: str
    outcome: Completion | ModelError


class BatchApi(Protocol):
    """A model's Batch API; safe to share between threads.

    Every operation raises `ModelError` if the provider is unreachable or refuses, does not know the
    batch, or has already ended a batch that is to be cancelled. After an error of `create` it is
    unknown whether the batch was created.
    """

    def body(self, request: CompletionRequest) -> JsonObject:
        """Return the body of a request in a batch."""

    def upload(self, batch: PreparedBatch) -> str:
        """Upload the questions, if the API has such a step; return the file's id."""

    def create(self, batch: PreparedBatch) -> BatchState:
        """Create the batch. A second call would be billed again."""

    def find(self, batch: PreparedBatch, known: Collection[str]) -> BatchState | None:
        """Return a batch whose creation was never confirmed; `known` are ids of other batches."""

    def retrieve(self, provider_id: str) -> BatchState:
        """Return the state of a batch."""

    def results(self, state: BatchState) -> Iterator[LineOutcome]:
        """Yield the outcomes of an ended batch's questions in any order; some may be missing."""

    def cancel(self, provider_id: str) -> None:
        """Request the cancellation; results that exist by then still have to be fetched."""

    def delete(self, provider_id: str, upload: str) -> None:
        """Delete an ended batch; either id may be empty, and what is gone is no error."""


# By the name of the provider.
_BATCH_APIS: Kinds[Callable[[ModelSettings, SecretStr, JsonTransport], BatchApi]] = Kinds(
    "chordwise.llm.batching", "BATCH_API"
)


def has_batches(settings: ModelSettings) -> bool:
    """Return whether a model has a Batch API: at its provider, or with `batch = true`."""
    if settings.provider not in _BATCH_APIS:
        return False
    if settings.batch is not None:
        return settings.batch
    return is_at_provider(settings.provider, settings.base_url)


def connect(
    settings: ModelSettings, api_key: SecretStr, transport: JsonTransport | None = None
) -> BatchApi:
    """Return the Batch API of a model, without any network request.

    Raises:
        ConfigurationError: It has none, or a value is invalid.
    """
    if not has_batches(settings):
        raise ConfigurationError(
            f"{settings.provider}/{settings.model} has no Batch API.",
            "Use the online lane, or set batch = true for the model if its server has one.",
        )
    return _BATCH_APIS[settings.provider](settings, api_key, transport or JsonTransport())
