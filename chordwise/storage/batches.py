"""Batches: questions submitted together to the Batch API of a provider, and their answers.

A batch request is one question that waits for a batch.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Date,
    ForeignKey,
    Index,
    SQLColumnExpression,
    UniqueConstraint,
    and_,
    cast,
    delete,
    exists,
    false,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import (
    AWAITED_REQUESTS,
    OPEN_CHUNKS,
    UNASKED_REQUESTS,
    UNFINISHED_JOBS,
    WORKING_JOBS,
    BatchRequestStatus,
    BatchStatus,
    ChunkStatus,
    JobStatus,
)
from chordwise.storage import budgets, clock
from chordwise.storage.budgets import Reservation
from chordwise.storage.chunks import Chunk
from chordwise.storage.jobs import Job, of_cancelled_run
from chordwise.storage.model_calls import Booking
from chordwise.storage.record import Identity, Record, in_ids, update_rows
from chordwise.storage.runs import Run
from chordwise.storage.sql_text import status_in

OPEN = (BatchStatus.PREPARING, BatchStatus.RUNNING)
"""The states of batches that have not ended."""


class Batch(Record):
    """One batch; its row is stored before it is submitted to the provider."""

    __tablename__ = "batches"
    __table_args__ = (Index("ix_batches_open", "poll_at", postgresql_where=status_in(OPEN)),)

    id: Mapped[Identity]
    provider: Mapped[str]
    model: Mapped[str]
    model_name: Mapped[str]
    status: Mapped[str] = mapped_column(default=BatchStatus.PREPARING)
    upload_id: Mapped[str | None]
    provider_id: Mapped[str | None]
    provider_status: Mapped[str | None]
    request_count: Mapped[int]
    counts: Mapped[JsonObject | None]
    polls: Mapped[int] = mapped_column(server_default="0")
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=clock.database_now())
    attempted_at: Mapped[datetime | None]
    submitted_at: Mapped[datetime | None]
    poll_at: Mapped[datetime] = mapped_column(server_default=clock.database_now())
    expires_at: Mapped[datetime | None]
    cancel_asked_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


def is_any_open() -> ColumnElement[bool]:
    """Return the condition that a batch is open, regardless of its next poll."""
    return exists().where(Batch.status.in_(OPEN))


def due(session: Session) -> Sequence[Batch]:
    """Return the open batches whose poll is due, the oldest poll first."""
    return session.scalars(
        select(Batch)
        .where(Batch.status.in_(OPEN), Batch.poll_at <= clock.database_now())
        .order_by(Batch.poll_at)
    ).all()


def change(session: Session, batch_id: uuid.UUID, **values: object) -> None:
    """Update columns of a batch."""
    session.execute(update(Batch).where(Batch.id == batch_id).values(**values))


def postpone(session: Session, batch_id: uuid.UUID, delay: timedelta, **values: object) -> None:
    """Count a poll, and schedule the next one after `delay`."""
    change(session, batch_id, polls=Batch.polls + 1, poll_at=clock.now_plus(delay), **values)


def attempt(session: Session, batch: Batch, upload_id: str) -> bool:
    """Record an attempt to create a batch; return false if another process has made one since.

    `batch` is as it was read before the provider was asked whether it already exists.
    """
    unchanged = Batch.attempted_at.is_not_distinct_from(batch.attempted_at)
    is_uncreated = (Batch.id == batch.id) & Batch.provider_id.is_(None) & unchanged
    values = {"upload_id": upload_id, "attempted_at": clock.database_now()}
    return update_rows(session, Batch, is_uncreated, **values)


def is_open(session: Session, model_name: str) -> bool:
    """Return whether a batch of this model is open."""
    condition = exists().where(Batch.model_name == model_name, Batch.status.in_(OPEN))
    return bool(session.scalar(select(condition)))


def refused_sizes(
    session: Session, model_name: str, codes: Collection[str], age: timedelta
) -> Sequence[int]:
    """Return the sizes of recent batches of a model that failed with these codes, newest first."""
    return session.scalars(
        select(Batch.request_count)
        .where(
            Batch.model_name == model_name,
            Batch.status == BatchStatus.FAILED,
            Batch.error_code.in_(codes),
            Batch.ended_at > clock.database_now() - age,
        )
        .order_by(Batch.ended_at.desc())
    ).all()


def is_older(session: Session, batch_id: uuid.UUID, age: timedelta) -> bool:
    """Return whether a batch was created longer ago than `age`."""
    old = Batch.created_at < clock.database_now() - age
    return session.scalar(select(Batch.id).where(Batch.id == batch_id, old)) is not None


def provider_ids(session: Session) -> set[str]:
    """Return the ids at the provider of all batches that Chordwise created."""
    names = session.scalars(select(Batch.provider_id).where(Batch.provider_id.is_not(None)))
    return {name for name in names if name}


class BatchRequest(Record):
    """One question of a chunk, or of the synthesis of a job (`chunk_id` is null).

    The late answer to a question that was `given_up` is paid for and not used. While a question
    `leads`, an owner that asks the same one follows it and receives its answer.
    """

    __tablename__ = "batch_requests"
    __table_args__ = (
        UniqueConstraint("owner_id", "key"),
        Index(
            "ix_batch_requests_pending",
            "model_name",
            "created_at",
            postgresql_where=f"status = '{BatchRequestStatus.PENDING.value}'",
        ),
        Index(
            "ix_batch_requests_reserved", "expires_at", postgresql_where="reserved_usd IS NOT NULL"
        ),
        Index(
            "ux_batch_requests_leading",
            "key",
            unique=True,
            postgresql_where="leads AND finished_at IS NULL",
        ),
        Index(
            "ix_batch_requests_following",
            "key",
            postgresql_where=f"status = '{BatchRequestStatus.FOLLOWING.value}'",
        ),
    )

    id: Mapped[Identity]
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), index=True)
    chunk_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("chunks.id"))
    owner_id: Mapped[uuid.UUID]
    key: Mapped[str]
    status: Mapped[str] = mapped_column(default=BatchRequestStatus.PENDING)
    model_name: Mapped[str]
    body: Mapped[str]
    body_bytes: Mapped[int] = mapped_column(BigInteger)
    call: Mapped[JsonObject]
    is_compared: Mapped[bool]
    leads: Mapped[bool] = mapped_column(server_default=false())
    reserved_usd: Mapped[Decimal | None]
    charged_usd: Mapped[Decimal | None]
    reserved_on: Mapped[date | None]
    expires_at: Mapped[datetime | None]
    batch_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey(Batch.id), index=True)
    call_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("model_calls.id"))
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime | None]
    answer: Mapped[JsonObject | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    hint: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=clock.database_now())
    finished_at: Mapped[datetime | None]


def seconds_left(session: Session, job_id: uuid.UUID) -> float | None:
    """Return how many seconds a job still waits for batches, or `None` if it does not use them."""
    left = func.extract("epoch", Job.batch_until - clock.database_now())
    seconds = session.scalar(select(left).where(Job.id == job_id))
    return None if seconds is None else float(seconds)


def locked(session: Session, owner_id: uuid.UUID, key: str) -> BatchRequest | None:
    """Return a question's row, locked until the transaction ends."""
    return session.scalars(
        select(BatchRequest)
        .where(BatchRequest.owner_id == owner_id, BatchRequest.key == key)
        .with_for_update()
    ).one_or_none()


def is_asked_online(session: Session, owner_id: uuid.UUID) -> bool:
    """Return whether a question of this chunk or synthesis is already asked online."""
    given_up = BatchRequest.status == BatchRequestStatus.GIVEN_UP
    condition = exists().where(BatchRequest.owner_id == owner_id, given_up)
    return bool(session.scalar(select(condition)))


def add(session: Session, values: dict[str, object]) -> bool:
    """Insert a question; return false if its owner already has it, or another one leads."""
    statement = insert(BatchRequest).values(values).on_conflict_do_nothing()
    return session.scalar(statement.returning(BatchRequest.id)) is not None


def reserve(session: Session, id_: uuid.UUID, reservation: Reservation, lasts: timedelta) -> None:
    """Reserve the maximum cost of a question that was just added.

    Raises:
        ModelError: The budget refuses it.
    """
    today = cast(func.timezone("UTC", clock.database_now()), Date)
    run_id, day = session.execute(
        select(Job.run_id, today).join(BatchRequest).where(BatchRequest.id == id_)
    ).one()
    amount_usd, expires_at = reservation.amount_usd, clock.now_plus(lasts)
    values = {"reserved_usd": amount_usd, "reserved_on": day, "expires_at": expires_at}
    session.execute(update(BatchRequest).where(BatchRequest.id == id_).values(values))
    booking = Booking(run_id=run_id, day=day, reserved_usd=amount_usd)
    key = str(id_)
    for refusal in budgets.book(session, [], {key: booking}, {key: reservation}).values():
        raise refusal


def is_awaited(owner: SQLColumnExpression[uuid.UUID]) -> ColumnElement[bool]:
    """Return the condition that this chunk or synthesis still waits for an answer."""
    request = aliased(BatchRequest)
    return exists().where(request.owner_id == owner, request.status.in_(AWAITED_REQUESTS))


def ready_models(
    session: Session, gather: timedelta, max_requests: int, max_bytes: int
) -> Sequence[str]:
    """Return the models whose pending questions are ready to be submitted as a batch.

    No question was added within `gather`, the oldest has waited ten times as long, or a limit is
    met.
    """
    now = clock.database_now()
    newest, oldest = func.max(BatchRequest.created_at), func.min(BatchRequest.created_at)
    return session.scalars(
        select(BatchRequest.model_name)
        .join(Job, Job.id == BatchRequest.job_id)
        .where(_is_submittable())
        .group_by(BatchRequest.model_name)
        .having(
            or_(
                newest <= now - gather,
                oldest <= now - 10 * gather,
                func.count() >= max_requests,
                func.sum(BatchRequest.body_bytes) >= max_bytes,
            )
        )
    ).all()


def lock_next(
    session: Session, model_name: str, max_requests: int, max_bytes: int
) -> Sequence[BatchRequest]:
    """Return the oldest questions that fit into one batch, locked; at least one, if any waits."""
    sizes = session.execute(
        select(BatchRequest.id, BatchRequest.body_bytes)
        .join(Job, Job.id == BatchRequest.job_id)
        .where(BatchRequest.model_name == model_name, _is_submittable())
        .order_by(BatchRequest.created_at, BatchRequest.id)
        .limit(max_requests)
    ).all()
    ids: list[uuid.UUID] = []
    total = 0
    for id_, size in sizes:
        total += size
        if ids and total > max_bytes:
            break
        ids.append(id_)
    return session.scalars(
        select(BatchRequest)
        .join(Job, Job.id == BatchRequest.job_id)
        .where(BatchRequest.id.in_(ids), _is_submittable())
        .order_by(BatchRequest.id)
        .with_for_update(skip_locked=True, of=BatchRequest)
    ).all()


def of_batch(session: Session, batch_id: uuid.UUID) -> Sequence[BatchRequest]:
    """Return the questions of a batch whose outcome is not known yet."""
    return session.scalars(
        select(BatchRequest)
        .where(BatchRequest.batch_id == batch_id, BatchRequest.finished_at.is_(None))
        .order_by(BatchRequest.id)
    ).all()


def with_lines(
    session: Session, batch_id: uuid.UUID, call_ids: Collection[uuid.UUID] | None, limit: int
) -> Sequence[BatchRequest]:
    """Return, locked by id, the unfinished questions of some lines of a batch, or of all lines."""
    conditions = [BatchRequest.batch_id == batch_id, BatchRequest.finished_at.is_(None)]
    if call_ids is not None:
        conditions.append(BatchRequest.call_id.in_(call_ids))
    return session.scalars(
        select(BatchRequest)
        .where(*conditions)
        .order_by(BatchRequest.id)
        .limit(limit)
        .with_for_update()
    ).all()


def has_waiting_jobs(session: Session, batch_id: uuid.UUID) -> bool:
    """Return whether a job still waits for an answer of a batch, directly or as a follower."""
    direct = exists().where(
        BatchRequest.batch_id == batch_id,
        BatchRequest.status == BatchRequestStatus.SUBMITTED,
        Job.id == BatchRequest.job_id,
        Job.status.in_(UNFINISHED_JOBS),
    )
    followed = exists().where(
        BatchRequest.batch_id == batch_id, BatchRequest.leads, _is_followed(UNFINISHED_JOBS)
    )
    return bool(session.scalar(select(direct))) or bool(session.scalar(select(followed)))


def drop_obsolete(session: Session, limit: int) -> int:
    """Delete unsubmitted questions whose job or chunk has ended; release their reservations."""
    open_chunk = exists().where(Chunk.id == BatchRequest.chunk_id, Chunk.status.in_(OPEN_CHUNKS))
    open_job = exists().where(Job.id == BatchRequest.job_id, Job.status.in_(UNFINISHED_JOBS))
    needed = and_(open_job, or_(BatchRequest.chunk_id.is_(None), open_chunk))
    return _remove_some(session, limit, BatchRequest.status.in_(UNASKED_REQUESTS), ~needed)


def _remove_some(session: Session, limit: int, *conditions: ColumnElement[bool]) -> int:
    rows = session.scalars(
        select(BatchRequest)
        .where(*conditions)
        .order_by(BatchRequest.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    remove(session, rows)
    return len(rows)


def remove(session: Session, rows: Sequence[BatchRequest]) -> None:
    """Delete questions that were not submitted to a provider, and release their reservations."""
    budgets.settle(session, {row.id: Decimal(0) for row in rows})
    session.execute(delete(BatchRequest).where(BatchRequest.id.in_([row.id for row in rows])))


def forget_failures(session: Session, job_ids: Collection[uuid.UUID]) -> None:
    """Delete failed and unusable answers of retried jobs, so that they are asked again."""
    failed_chunk = exists().where(
        Chunk.id == BatchRequest.chunk_id,
        Chunk.status.in_((ChunkStatus.FAILED, ChunkStatus.QUARANTINED)),
    )
    badly = (JobStatus.FAILED, JobStatus.PARTIAL, JobStatus.QUARANTINED)
    failed_synthesis = and_(
        BatchRequest.chunk_id.is_(None),
        exists().where(Job.id == BatchRequest.job_id, Job.status.in_(badly)),
    )
    useless = or_(
        BatchRequest.status != BatchRequestStatus.ANSWERED, failed_chunk, failed_synthesis
    )
    session.execute(
        delete(BatchRequest).where(
            in_ids(BatchRequest.job_id, job_ids), BatchRequest.finished_at.is_not(None), useless
        )
    )


def forget(session: Session, older_than: timedelta) -> None:
    """Delete questions whose job has ended and that finished longer ago than `older_than`."""
    ended = exists().where(Job.id == BatchRequest.job_id, Job.status.not_in(UNFINISHED_JOBS))
    session.execute(
        delete(BatchRequest).where(
            BatchRequest.finished_at < clock.database_now() - older_than, ended
        )
    )


def _is_submittable() -> ColumnElement[bool]:
    return and_(
        BatchRequest.status == BatchRequestStatus.PENDING,
        or_(BatchRequest.due_at.is_(None), BatchRequest.due_at <= clock.database_now()),
        Job.status.in_(WORKING_JOBS),
        ~of_cancelled_run(),
    )


def lock_followers(session: Session, keys: Collection[str]) -> Sequence[BatchRequest]:
    """Return the questions that follow one of these keys, locked in the order of their ids."""
    if not keys:
        return []
    return session.scalars(
        select(BatchRequest)
        .where(BatchRequest.key.in_(keys), BatchRequest.status == BatchRequestStatus.FOLLOWING)
        .order_by(BatchRequest.id)
        .with_for_update()
    ).all()


def has_cancelled(session: Session, batch_id: uuid.UUID) -> bool:
    """Return whether a batch has questions of a cancelled run that no other job waits for.

    The runs are locked, so that none of them is cancelled before the transaction ends.
    """
    in_batch = (
        select(Job.run_id)
        .join(BatchRequest, BatchRequest.job_id == Job.id)
        .where(BatchRequest.batch_id == batch_id)
    )
    session.execute(
        select(Run.id).where(Run.id.in_(in_batch)).order_by(Run.id).with_for_update(read=True)
    )
    cancelled = exists().where(
        BatchRequest.batch_id == batch_id,
        BatchRequest.status == BatchRequestStatus.SUBMITTED,
        Job.id == BatchRequest.job_id,
        of_cancelled_run(),
        ~(BatchRequest.leads & _is_followed(UNFINISHED_JOBS)),
    )
    return bool(session.scalar(select(cancelled)))


def drop_idle_leaders(session: Session, limit: int) -> int:
    """Delete unsubmitted questions of inactive jobs that others follow, with their reservations.

    A retried job asks them again; the followers do not wait for that.
    """
    moves = exists().where(Job.id == BatchRequest.job_id, Job.status.in_(WORKING_JOBS))
    is_pending = BatchRequest.status == BatchRequestStatus.PENDING
    is_idle = and_(BatchRequest.leads, is_pending, ~moves)
    return _remove_some(session, limit, is_idle, _is_followed(WORKING_JOBS))


def drop_lost(session: Session, limit: int) -> int:
    """Delete questions whose leader is cancelled, online, or answered; their chunks ask again."""
    leader = aliased(BatchRequest)
    leads = exists().where(
        leader.key == BatchRequest.key, leader.leads, leader.finished_at.is_(None)
    )
    is_following = BatchRequest.status == BatchRequestStatus.FOLLOWING
    return _remove_some(session, limit, is_following, ~leads)


def _is_followed(states: Collection[JobStatus]) -> ColumnElement[bool]:
    follower, job = aliased(BatchRequest), aliased(Job)
    return exists().where(
        follower.key == BatchRequest.key,
        follower.status == BatchRequestStatus.FOLLOWING,
        job.id == follower.job_id,
        job.status.in_(states),
    )
