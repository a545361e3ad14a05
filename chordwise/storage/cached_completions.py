"""Cached completions: the answer of a model to a request, for reuse by equal requests."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Delete, Text, any_, delete, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonObject
from chordwise.storage import clock
from chordwise.storage.database import Database
from chordwise.storage.group_commit import GroupCommit
from chordwise.storage.model_calls import owner_of
from chordwise.storage.record import Record


class CachedCompletion(Record):
    """The answer to a request, identified by the hash of everything that determines it."""

    __tablename__ = "cached_completions"

    key: Mapped[str] = mapped_column(primary_key=True)
    completion: Mapped[JsonObject]
    created_at: Mapped[datetime] = mapped_column(server_default=clock.database_now(), index=True)


# How long a search waits for others, extended while more arrive.
_GATHER_SECONDS = 0.008
_FIND = text(f"""
    SELECT key, completion, NULL AS owner, created_at <= clock_timestamp() - :max_age AS is_old
    FROM cached_completions WHERE key = ANY(CAST(:keys AS text[]))
    UNION ALL
    SELECT call.question, NULL, {owner_of("call")}, false FROM model_calls call
    WHERE call.question = ANY(CAST(:keys AS text[])) AND call.question IS NOT NULL
        AND call.finished_at IS NULL AND call.expires_at > clock_timestamp()
    ORDER BY completion NULLS FIRST""")


def cached_keys(session: Session, keys: Collection[str], max_age: timedelta) -> set[str]:
    """Return the requests that have a completion not older than `max_age`; count no use."""
    if not keys:
        return set()
    statement = select(CachedCompletion.key).where(
        CachedCompletion.key == any_(literal(list(keys), ARRAY(Text()))),
        CachedCompletion.created_at > clock.database_now() - max_age,
    )
    return set(session.scalars(statement))


def store(session: Session, key: str, completion: JsonObject) -> None:
    """Store a completion that was answered in a batch."""
    statement = insert(CachedCompletion).values(key=key, completion=completion)
    new = {"completion": statement.excluded.completion, "created_at": clock.database_now()}
    session.execute(
        statement.on_conflict_do_update(index_elements=[CachedCompletion.key], set_=new)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionState:
    """The completion of a question, or the owner of the call in flight that asks it."""

    completion: JsonObject | None
    owner: uuid.UUID | None


class CompletionStore:
    """Finds completions not older than `max_age`, for all threads together."""

    def __init__(self, database: Database, max_age: timedelta) -> None:
        self._database = database
        self.max_age = max_age
        self._searches = GroupCommit(database.autocommit, self._find_all, _GATHER_SECONDS)

    def find(self, key: str) -> QuestionState | None:
        """Return the completion of a question, or who asks it, if anyone does.

        Raises:
            ServiceUnavailableError: The database is unavailable.
        """
        return self._searches.commit(key, timedelta(0))

    def discard(self, key: str, within: timedelta) -> None:
        """Delete a completion that turned out to be unusable.

        Raises:
            ServiceUnavailableError: The database was unavailable for longer than `within`.
        """
        statement = delete(CachedCompletion).where(CachedCompletion.key == key)
        self._database.commit(lambda session: session.execute(statement), within)

    def _find_all(self, store: Connection, keys: Sequence[str]) -> Sequence[QuestionState | None]:
        values = {"keys": sorted(set(keys)), "max_age": self.max_age}
        rows = store.execute(_FIND, values).all()
        old_keys = [row.key for row in rows if row.is_old]
        if old_keys:
            store.execute(_outdated(self.max_age).where(CachedCompletion.key.in_(old_keys)))
        states = {
            row.key: QuestionState(completion=row.completion, owner=row.owner)
            for row in rows
            if not row.is_old
        }
        return [states.get(key) for key in keys]


def forget(session: Session, older_than: timedelta) -> None:
    """Delete completions that are older than `older_than`."""
    session.execute(_outdated(older_than))


def _outdated(max_age: timedelta) -> Delete:
    now = clock.database_now()
    return delete(CachedCompletion).where(CachedCompletion.created_at <= now - max_age)
