"""The port to every Batch API: questions submitted together, answers fetched when ready."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from chordwise.domain.json_values import JsonObject
from chordwise.errors import ModelError
from chordwise.llm.model import Completion, CompletionRequest


class Phase(StrEnum):
    """The phase of a batch: still running, ended with results, or rejected as a whole."""

    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """One question of a batch; `custom_id` has 64 characters at most and is used once only."""

    custom_id: str
    body: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedBatch:
    """What is to be submitted.

    `marker` is our id of the batch and `prepared_at` when it was put together; `upload` names the
    file at the provider where that wants one.
    """

    marker: str
    prepared_at: datetime
    lines: Sequence[BatchLine]
    upload: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchState:
    """What a provider says of a batch.

    `status` is its own word, `counts` its own counts; `files` are to be read once it has ended.
    `error` says why it was turned away.
    """

    provider_id: str
    phase: Phase
    status: str
    counts: Mapping[str, int] = field(default_factory=dict)
    expires_at: datetime | None = None
    files: tuple[str, ...] = ()
    error: ModelError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LineOutcome:
    """What became of one question; a `TransientError` may be submitted again."""

    custom_id: str
    outcome: Completion | ModelError


class BatchApi(Protocol):
    """A model's Batch API; safe to share between threads.

    Every operation raises `ModelError` where the provider cannot be asked or refuses, does not know
    the batch, or has ended what is to be cancelled. After an error of `create` it is unknown
    whether the batch was created.
    """

    def body(self, request: CompletionRequest) -> JsonObject:
        """Return the body of a request in a batch."""

    def upload(self, batch: PreparedBatch) -> str:
        """Upload the questions, if the API has such a step; return the file's id."""

    def create(self, batch: PreparedBatch) -> BatchState:
        """Create the batch. A second call would be billed again."""

    def find(self, batch: PreparedBatch, known: Collection[str]) -> BatchState | None:
        """Return a batch whose creation was never confirmed; `known` are others."""

    def look(self, provider_id: str) -> BatchState:
        """Return the state of a batch."""

    def results(self, state: BatchState) -> Iterator[LineOutcome]:
        """Yield the outcomes of an ended batch's questions in any order; some may be missing."""

    def cancel(self, provider_id: str) -> None:
        """Ask the provider to stop; what is done by then is still to be fetched."""
