"""One answer for everybody who waits for it: the same question is asked and paid once."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from chordwise.domain.lanes import BatchRequestStatus
from chordwise.pipeline.batch_queue import from_json
from chordwise.pipeline.ledger import hit_of
from chordwise.storage import batch_followers, clock, model_calls
from chordwise.storage.batch_requests import BatchRequest
from chordwise.storage.record import new_id


def share(session: Session, rows: Sequence[BatchRequest]) -> None:
    """Give what these questions brought to those that follow them, and let them lead no more.

    Those whose outcome is still to come go on leading.
    """
    ended = {row.key: row for row in rows if row.leads and row.finished_at is not None}
    for follower in batch_followers.of(session, ended):
        _give(session, ended[follower.key], follower)
    for row in ended.values():
        row.leads = False


def _give(session: Session, leader: BatchRequest, follower: BatchRequest) -> None:
    """Copy an answer, or why there is none; one that came too late for the leader is an answer."""
    follower.finished_at = clock.read(session)
    if leader.answer is None:
        follower.status, follower.hint = leader.status, leader.hint
        follower.error_code, follower.error_message = leader.error_code, leader.error_message
        return
    follower.status, follower.answer = BatchRequestStatus.ANSWERED, leader.answer
    call_id = new_id()
    owner = {"id": call_id, "job_id": follower.job_id, "chunk_id": follower.chunk_id}
    values: dict[str, object] = dict(follower.call)
    model_calls.begin(session, values | owner | hit_of(from_json(leader)))
    follower.call_id = call_id
