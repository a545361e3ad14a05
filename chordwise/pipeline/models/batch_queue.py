"""The questions of one chunk or synthesis that wait for a batch; each step is a transaction."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from chordwise import errors
from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import UNASKED_REQUESTS, BatchRequestStatus, Lane
from chordwise.errors import AwaitingBatchError, ChordwiseError, ModelError
from chordwise.llm.middleware.batched import BatchQuestion
from chordwise.llm.model import Completion, FinishReason
from chordwise.pipeline.models.budgets import reservation_of
from chordwise.pipeline.models.ledger import completion_from_json, completion_to_json, row_of
from chordwise.settings import Settings
from chordwise.storage import batches, cached_completions, clock
from chordwise.storage.batches import BatchRequest
from chordwise.storage.database import Database
from chordwise.storage.record import new_id

# Nothing is paid for yet, so there is no reason to wait for long.
_DATABASE_TIMEOUT = timedelta(seconds=15)
_WINDOW = timedelta(hours=30)
"""The time after its latest submission in which a question may be answered and paid for."""


def _kinds(kind: type[ModelError]) -> dict[str, type[ModelError]]:
    kinds = {kind.code: kind}
    for below in kind.__subclasses__():
        kinds = {**_kinds(below), **kinds}
    return kinds


_KINDS: Mapping[str, type[ModelError]] = MappingProxyType(_kinds(errors.ModelError))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobBatches:
    """Implements `chordwise.llm.middleware.batched.BatchQueue` for one model.

    `model_name` is the name in the settings; `max_age` is that of the cache, `None` without one.
    `settings` are those of the budget, `None` if it is not limited.
    """

    database: Database
    settings: Settings | None
    job_id: uuid.UUID
    chunk_id: uuid.UUID | None
    model_name: str
    max_age: timedelta | None

    def answer(self, question: BatchQuestion) -> Completion | None:
        """Return the answer if it has arrived, or `None` if the question is to be asked online.

        Raises:
            AwaitingBatchError: The question waits for a batch.
            ModelError: The provider returned an error, or the budget does not cover the question.
            ConfigurationError: There is a cap, and the price is unknown.
        """
        outcome = self.database.commit(lambda s: self._check(s, question), _DATABASE_TIMEOUT)
        if isinstance(outcome, ChordwiseError):
            raise outcome
        return outcome

    @property
    def _owner_id(self) -> uuid.UUID:
        return self.chunk_id or self.job_id

    def _check(
        self, session: Session, question: BatchQuestion
    ) -> Completion | ChordwiseError | None:
        left = batches.seconds_left(session, self.job_id)
        row = batches.locked(session, self._owner_id, question.key)
        if row is not None and row.status == BatchRequestStatus.ANSWERED:
            return from_json(row)
        if row is not None and row.status == BatchRequestStatus.FAILED:
            kind = _KINDS.get(row.error_code or "", ModelError)
            return kind(row.error_message or "The question failed in its batch.", row.hint or "")
        if left is None or left <= 0 or batches.is_asked_online(session, self._owner_id):
            self._withdraw(session, row)
            return None
        if row is None:
            age = self.max_age
            if age is not None and cached_completions.cached_keys(session, [question.key], age):
                return None
            self._add(session, question, timedelta(seconds=left))
        error = AwaitingBatchError(
            f"The question waits for a batch of {question.call.provider}/{question.call.model}."
        )
        error.retry_after_seconds = left
        return error

    def _withdraw(self, session: Session, row: BatchRequest | None) -> None:
        """Remove a question that is now asked online; if it was submitted, mark it as given up."""
        if row is None:
            return
        if row.status in UNASKED_REQUESTS:
            batches.remove(session, [row])
        else:
            row.status = BatchRequestStatus.GIVEN_UP

    def _add(self, session: Session, question: BatchQuestion, left: timedelta) -> None:
        """Store the question and reserve its money, or do neither.

        If another owner already waits for the same question, this owner is added to it: the
        question is asked and paid once.
        """
        body = json.dumps(question.body, ensure_ascii=False)
        id_ = new_id()
        values: dict[str, object] = {
            "id": id_,
            "job_id": self.job_id,
            "chunk_id": self.chunk_id,
            "owner_id": self._owner_id,
            "key": question.key,
            "status": BatchRequestStatus.PENDING,
            "model_name": self.model_name,
            "body": body,
            "body_bytes": len(body.encode(errors="replace")),
            "call": row_of(question.call),
            "is_compared": question.is_compared,
            "leads": self.max_age is not None,
            "attempts": 0,
        }
        # A worker that has lost its lease may ask the same at this moment.
        if batches.add(session, values):
            if self.settings is not None:
                reservation = reservation_of(self.settings, question.max_usd)
                batches.reserve(session, id_, reservation, left + _WINDOW)
        elif self.max_age is not None:
            follows = {"status": BatchRequestStatus.FOLLOWING, "leads": False}
            # It is never submitted itself.
            batches.add(session, values | follows | {"body": "", "body_bytes": 0})


def to_json(completion: Completion) -> JsonObject:
    """Return a completion as it is stored in `batch_requests.answer`; it may be incomplete."""
    return {
        **completion_to_json(completion),
        "finish_reason": completion.finish_reason.value,
        "refusal": completion.refusal,
    }


def from_json(row: BatchRequest) -> Completion:
    """Return what `to_json` has written, with the ledger row and the cache key."""
    stored = row.answer or {}
    return replace(
        completion_from_json(stored),
        finish_reason=FinishReason(json_values.text(stored.get("finish_reason"))),
        refusal=json_values.text(stored.get("refusal")),
        call_id=str(row.call_id or ""),
        cache_key=row.key,
    )


def batch_until(settings: Settings, lane: Lane) -> ColumnElement[datetime] | None:
    """Return the deadline until which questions of a job wait for batches; `None` online."""
    return spill_over_time(settings) if lane is Lane.BATCH else None


def spill_over_time(settings: Settings) -> ColumnElement[datetime]:
    """Return the time after which unanswered questions are asked online."""
    return clock.now_plus(timedelta(hours=settings.batch.spill_over_hours))
