"""One answer for everybody who waits for it: the same question is asked and paid once."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from chordwise.domain.lanes import BatchRequestStatus
from chordwise.pipeline.models.batch_queue import from_json
from chordwise.pipeline.models.ledger import hit_of
from chordwise.storage import batch_requests, clock, model_calls
from chordwise.storage.batch_requests import BatchRequest
from chordwise.storage.record import new_id


def share(session: Session, rows: Sequence[BatchRequest]) -> None:
    """Give what these questions brought to those that follow them, and let them lead no more.

    Those whose outcome is still to come go on leading.
    """
    ended = {row.key: row for row in rows if row.leads and row.finished_at is not None}
    followers = batch_requests.of(session, ended)
    if followers:
        _give(session, ended, followers)
    for row in ended.values():
        row.leads = False


def _give(
    session: Session, leaders: Mapping[str, BatchRequest], followers: Sequence[BatchRequest]
) -> None:
    """Copy the outcomes; thousands may follow one question, so the ledger is written at once."""
    now = clock.read(session)
    hits = {
        key: _hit_of(leader, now) for key, leader in leaders.items() if leader.answer is not None
    }
    answered = {new_id(): row for row in followers if row.key in hits}
    calls = [_call_of(row, id_) | hits[row.key] for id_, row in answered.items()]
    model_calls.add_all(session, calls)
    for id_, row in answered.items():
        row.call_id = id_
    for follower in followers:
        follower.finished_at = now
        _copy(leaders[follower.key], follower)


def _copy(leader: BatchRequest, follower: BatchRequest) -> None:
    """Copy an answer, or why there is none; one that came too late for the leader is an answer."""
    if leader.answer is None:
        follower.status, follower.hint = leader.status, leader.hint
        follower.error_code, follower.error_message = leader.error_code, leader.error_message
    else:
        follower.status, follower.answer = BatchRequestStatus.ANSWERED, leader.answer


def _hit_of(leader: BatchRequest, now: datetime) -> dict[str, object]:
    return {**hit_of(from_json(leader)), "finished_at": now}


def _call_of(follower: BatchRequest, id_: uuid.UUID) -> dict[str, object]:
    owner = {"id": id_, "job_id": follower.job_id, "chunk_id": follower.chunk_id}
    return {**follower.call, **owner}
