"""Putting batches together: which questions go into one, and a row in the ledger for each."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy.orm import Session

from chordwise.domain import json_values
from chordwise.domain.lanes import BatchRequestStatus
from chordwise.errors import ContextTooLongError, RateLimitedError
from chordwise.pipeline.runtime.context import Context
from chordwise.storage import batch_requests, batches, model_calls
from chordwise.storage.batch_requests import BatchRequest
from chordwise.storage.batches import Batch
from chordwise.storage.record import new_id

log = structlog.get_logger(__name__)

MOST_BYTES = 32 * 1024 * 1024
"""Far below what providers take (200 and 256 MB): the whole of it is in memory when it is sent."""
# The provider has no room for a batch, or a gateway for a file: smaller ones may fit.
_TOO_MUCH = (RateLimitedError.code, ContextTooLongError.code)
_REMEMBERED = timedelta(days=1)


def prepare(context: Context) -> None:
    """Put together what is ready; each batch is one transaction, and no provider hears of it yet.

    Raises:
        ServiceUnavailableError: The database cannot be reached.
    """
    settings = context.settings.batch
    gather, most = timedelta(seconds=settings.gather_seconds), settings.most_requests
    with context.database.write() as session:
        ready = batch_requests.ready_models(session, gather, most, MOST_BYTES)
    for name in ready:
        with context.database.write() as session:
            if size := _size(session, name, most):
                _put_together(session, name, size)


def refused(session: Session, name: str) -> Sequence[int]:
    """Return the sizes of a model's batches that were too much for the provider, newest first."""
    return batches.refused_sizes(session, name, _TOO_MUCH, _REMEMBERED)


def _size(session: Session, name: str, most: int) -> int:
    """Return how many questions a batch may have now.

    Where one was too much for the provider, the next has half of it, and goes alone.
    """
    too_large = refused(session, name)
    if not too_large:
        return most
    return 0 if batches.is_open(session, name) else min(most, max(1, too_large[0] // 2))


def _put_together(session: Session, name: str, size: int) -> None:
    rows = batch_requests.take(session, name, size, MOST_BYTES)
    if not rows:
        return
    batch = Batch(
        id=new_id(),
        provider=json_values.text(rows[0].call.get("provider")),
        model=json_values.text(rows[0].call.get("model")),
        model_name=name,
        request_count=len(rows),
    )
    session.add(batch)
    session.flush()
    for row in rows:
        call_id = new_id()
        model_calls.begin_all(session, [_call_of(row, call_id)])
        row.call_id = call_id
        row.batch_id, row.status = batch.id, BatchRequestStatus.SUBMITTED
        row.attempts += 1
    log.info("batch.prepared", batch_id=str(batch.id), model=batch.model, count=len(rows))


def _call_of(row: BatchRequest, call_id: uuid.UUID) -> dict[str, object]:
    values: dict[str, object] = dict(row.call)
    attempt = json_values.number(row.call.get("attempt")) or 1
    known = {"id": call_id, "job_id": row.job_id, "chunk_id": row.chunk_id, "cache_hit": False}
    return {**values, **known, "attempt": int(attempt) + row.attempts}
