"""Cached completions: the answer of a model to a request, for reuse by equal requests."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Text,
    and_,
    any_,
    delete,
    false,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonObject
from chordwise.storage import clock
from chordwise.storage.record import Record


class CachedCompletion(Record):
    """One request, identified by the hash of everything that determines its answer.

    `completion` is null while the request is in flight; other workers wait until `claimed_until`.
    """

    __tablename__ = "cached_completions"

    key: Mapped[str] = mapped_column(primary_key=True)
    provider: Mapped[str]
    model: Mapped[str]
    prompt_version: Mapped[str]
    completion: Mapped[JsonObject | None]
    claim_token: Mapped[uuid.UUID | None]
    claimed_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=clock.database_now(), index=True)
    used_at: Mapped[datetime | None]
    uses: Mapped[int] = mapped_column(BigInteger, server_default="0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim on a request: who asks it, how long the claim lasts, and the values of the row.

    A worker that retries with the same `token` continues its earlier claim.
    """

    key: str
    token: uuid.UUID
    lasts: timedelta
    provider: str
    model: str
    prompt_version: str


def find(session: Session, key: str, max_age: timedelta) -> JsonObject | None:
    """Return the completion of a request unless it is older than `max_age`, and count its use."""
    if not has(session, key, max_age):
        return None
    return session.scalar(
        update(CachedCompletion)
        .where(_is_fresh(key, max_age))
        .values(uses=CachedCompletion.uses + 1, used_at=clock.database_now())
        .returning(CachedCompletion.completion)
    )


def has(session: Session, key: str, max_age: timedelta) -> bool:
    """Return whether a completion exists that is not older than `max_age`; do not count a use."""
    found = select(CachedCompletion.key).where(_is_fresh(key, max_age))
    return session.scalar(found) is not None


def cached_keys(session: Session, keys: Collection[str], max_age: timedelta) -> set[str]:
    """Return those of the requests for which `has` returns true."""
    if not keys:
        return set()
    asked = CachedCompletion.key == any_(literal(list(keys), ARRAY(Text())))
    return set(session.scalars(select(CachedCompletion.key).where(asked, _is_usable(max_age))))


def _is_fresh(key: str, max_age: timedelta) -> ColumnElement[bool]:
    return and_(CachedCompletion.key == key, _is_usable(max_age))


def _is_usable(max_age: timedelta) -> ColumnElement[bool]:
    fresh = CachedCompletion.created_at > clock.database_now() - max_age
    return and_(CachedCompletion.completion.is_not(None), fresh)


def store_unclaimed(session: Session, values: Mapping[str, object]) -> None:
    """Store a completion without a claim: one that was answered in a batch."""
    statement = insert(CachedCompletion).values(**values)
    kept = {
        "completion": statement.excluded.completion,
        "created_at": clock.database_now(),
        "claim_token": None,
        "claimed_until": None,
    }
    session.execute(
        statement.on_conflict_do_update(index_elements=[CachedCompletion.key], set_=kept)
    )


def claim(session: Session, claim: Claim, max_age: timedelta) -> bool:
    """Claim a request; return false if it has a usable completion or another worker claims it."""
    # Read without a lock: most waiting workers find the claim of another one.
    is_held = CachedCompletion.key == claim.key, _held_by_others(claim)
    if session.scalar(select(CachedCompletion.key).where(*is_held)) is not None:
        return False
    values: dict[str, object] = {
        "claim_token": claim.token,
        "claimed_until": clock.after(claim.lasts),
        "provider": claim.provider,
        "model": claim.model,
        "prompt_version": claim.prompt_version,
    }
    now = clock.database_now()
    statement = insert(CachedCompletion).values(key=claim.key, **values)
    taken = statement.on_conflict_do_update(
        index_elements=[CachedCompletion.key],
        set_={**values, "completion": null(), "created_at": now, "uses": 0},
        where=and_(
            or_(
                CachedCompletion.completion.is_(None), CachedCompletion.created_at <= now - max_age
            ),
            not_(_held_by_others(claim)),
        ),
    )
    return session.scalar(taken.returning(CachedCompletion.key)) is not None


def store(session: Session, claim: Claim, completion: JsonObject) -> None:
    """Store the completion of a request if the claim is still held."""
    session.execute(
        update(CachedCompletion)
        .where(CachedCompletion.key == claim.key, CachedCompletion.claim_token == claim.token)
        .values(
            completion=completion,
            created_at=clock.database_now(),
            claim_token=None,
            claimed_until=None,
        )
    )


def release(session: Session, claim: Claim) -> None:
    """Release a claim without a completion."""
    session.execute(
        delete(CachedCompletion).where(
            CachedCompletion.key == claim.key,
            CachedCompletion.claim_token == claim.token,
            CachedCompletion.completion.is_(None),
        )
    )


def discard(session: Session, key: str) -> None:
    """Delete a completion that turned out to be unusable."""
    session.execute(
        delete(CachedCompletion).where(
            CachedCompletion.key == key, CachedCompletion.completion.is_not(None)
        )
    )


def forget(session: Session, older_than: timedelta) -> None:
    """Delete completions that are older than `older_than`, and abandoned claims of that age."""
    now = clock.database_now()
    abandoned = func.coalesce(CachedCompletion.claimed_until, CachedCompletion.created_at) <= now
    session.execute(
        delete(CachedCompletion).where(CachedCompletion.created_at < now - older_than, abandoned)
    )


def _held_by_others(claim: Claim) -> ColumnElement[bool]:
    return and_(
        func.coalesce(CachedCompletion.claimed_until > clock.database_now(), false()),
        func.coalesce(CachedCompletion.claim_token != claim.token, false()),
    )
