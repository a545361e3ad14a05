"""Cached completions: the answer of a model to a request, for reuse by equal requests."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import BigInteger, Connection, Text, any_, delete, func, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.json_values import JsonObject
from chordwise.storage import clock
from chordwise.storage.database import Database
from chordwise.storage.group_commit import GroupCommit
from chordwise.storage.record import Record


class CachedCompletion(Record):
    """One request, identified by the hash of everything that determines its answer.

    `completion` is null while the request is in flight; others wait until `claimed_until`.
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


# How long a claim or a completion waits for others, extended while more arrive.
_GATHER_SECONDS = 0.008
# Repeated beside each join, so that the planner finds rows by key whatever its statistics say.
_NAMED = "c.key = ANY(CAST(:keys AS text[]))"
# Rows are locked in the order of their keys.
_FIND_OR_CLAIM = text(f"""
    WITH asked AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS asked (key text, uses bigint,
            claim_token uuid, seconds float8, provider text, model text, prompt_version text)
    ), usable AS (
        SELECT c.key, asked.uses FROM asked JOIN cached_completions c ON c.key = asked.key
        WHERE {_NAMED} AND c.completion IS NOT NULL AND c.created_at > clock_timestamp() - :max_age
        ORDER BY c.key FOR UPDATE OF c
    ), used AS (
        UPDATE cached_completions c
        SET uses = c.uses + usable.uses, used_at = clock_timestamp()
        FROM usable WHERE c.key = usable.key AND {_NAMED}
        RETURNING c.key, c.completion
    ), claimed AS (
        INSERT INTO cached_completions AS c
            (key, provider, model, prompt_version, claim_token, claimed_until)
        SELECT key, provider, model, prompt_version, claim_token,
            clock_timestamp() + seconds * interval '1 second'
        FROM asked
        WHERE key NOT IN (SELECT key FROM used) AND NOT EXISTS (  -- most find a claim of others
            SELECT FROM cached_completions c WHERE c.key = asked.key
                AND c.claimed_until > clock_timestamp() AND c.claim_token <> asked.claim_token
        )
        ORDER BY key
        ON CONFLICT (key) DO UPDATE SET claim_token = excluded.claim_token,
            claimed_until = excluded.claimed_until, provider = excluded.provider,
            model = excluded.model, prompt_version = excluded.prompt_version,
            completion = NULL, created_at = clock_timestamp(), uses = 0
        WHERE (c.completion IS NULL OR c.created_at <= clock_timestamp() - :max_age)
            AND NOT coalesce(c.claimed_until > clock_timestamp()
                AND c.claim_token <> excluded.claim_token, false)
        RETURNING c.key
    )
    SELECT key, completion FROM used UNION ALL SELECT key, NULL FROM claimed""")  # noqa: S608 - fixed names
_STORE = text(f"""
    WITH answered AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:rows AS json))
            AS answered (key text, claim_token uuid, completion jsonb)
    ), held AS (
        SELECT c.key, answered.completion
        FROM answered JOIN cached_completions c USING (key, claim_token) WHERE {_NAMED}
        ORDER BY c.key FOR UPDATE OF c
    )
    UPDATE cached_completions c SET completion = held.completion,
        created_at = clock_timestamp(), claim_token = NULL, claimed_until = NULL
    FROM held WHERE c.key = held.key AND {_NAMED}""")  # noqa: S608 - fixed names


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestClaim:
    """A claim on a request, with the values of its row; the same `token` continues a claim."""

    key: str
    token: uuid.UUID
    lasts: timedelta
    provider: str
    model: str
    prompt_version: str


def cached_keys(session: Session, keys: Collection[str], max_age: timedelta) -> set[str]:
    """Return the requests that have a completion not older than `max_age`; count no use."""
    if not keys:
        return set()
    statement = select(CachedCompletion.key).where(
        CachedCompletion.key == any_(literal(list(keys), ARRAY(Text()))),
        CachedCompletion.completion.is_not(None),
        CachedCompletion.created_at > clock.database_now() - max_age,
    )
    return set(session.scalars(statement))


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


class CompletionStore:
    """Finds, claims and stores completions not older than `max_age`, for all threads together."""

    def __init__(self, database: Database, max_age: timedelta) -> None:
        self._database = database
        self.max_age = max_age
        self._claims = GroupCommit(database.autocommit, self._find_or_claim_all, _GATHER_SECONDS)
        self._completions = GroupCommit(database.autocommit, _store_all, _GATHER_SECONDS)

    def find_or_claim(self, claim: RequestClaim) -> JsonObject | bool:
        """Return the completion of a request and count its use, or claim the request.

        Return true if it is claimed, and false if another worker claims it.

        Raises:
            ServiceUnavailableError: The database is unavailable.
        """
        return self._claims.commit(claim, timedelta(0))

    def store(self, claim: RequestClaim, completion: JsonObject, within: timedelta) -> None:
        """Store the completion of a request if the claim is still held.

        Raises:
            ServiceUnavailableError: The database was unavailable for longer than `within`.
        """
        self._completions.commit((claim, completion), within)

    def release(self, claim: RequestClaim, within: timedelta) -> None:
        """Release a claim without a completion.

        Raises:
            ServiceUnavailableError: The database was unavailable for longer than `within`.
        """
        for attempt in self._database.attempts(within):
            with attempt as session:
                session.execute(
                    delete(CachedCompletion).where(
                        CachedCompletion.key == claim.key,
                        CachedCompletion.claim_token == claim.token,
                        CachedCompletion.completion.is_(None),
                    )
                )

    def _find_or_claim_all(
        self, store: Connection, claims: Sequence[RequestClaim]
    ) -> Sequence[JsonObject | bool]:
        first = {claim.key: claim for claim in reversed(claims)}
        uses = Counter(claim.key for claim in claims)
        rows = [_row(claim) | {"uses": uses[claim.key]} for claim in first.values()]
        values = {"rows": json.dumps(rows), "keys": list(first), "max_age": self.max_age}
        stored: dict[str, JsonObject | None] = dict(iter(store.execute(_FIND_OR_CLAIM, values)))

        def outcome(claim: RequestClaim) -> JsonObject | bool:
            completion = stored.get(claim.key)
            if completion is not None:
                return completion
            return claim.key in stored and claim.token == first[claim.key].token

        return [outcome(claim) for claim in claims]


def _store_all(
    store: Connection, completions: Sequence[tuple[RequestClaim, JsonObject]]
) -> Sequence[None]:
    rows = [_row(claim) | {"completion": completion} for claim, completion in completions]
    keys = [claim.key for claim, _ in completions]
    store.execute(_STORE, {"rows": json.dumps(rows), "keys": keys})
    return [None] * len(completions)


def _row(claim: RequestClaim) -> dict[str, object]:
    return {
        "key": claim.key,
        "claim_token": str(claim.token),
        "seconds": claim.lasts.total_seconds(),
        "provider": claim.provider,
        "model": claim.model,
        "prompt_version": claim.prompt_version,
    }


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
