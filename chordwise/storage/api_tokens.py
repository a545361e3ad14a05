"""Tokens of the API and of the MCP server, stored as hashes; a revoked one is deleted."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.people import Right
from chordwise.errors import UsageError
from chordwise.storage.database import Database
from chordwise.storage.record import CreatedAt, Record


class ApiToken(Record):
    """A token, whose name signs decisions; `scopes` are separated by spaces."""

    __tablename__ = "api_tokens"

    name: Mapped[str] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[str]
    created_at: Mapped[CreatedAt]


def create(session: Session, name: str, scopes: Collection[Right]) -> str:
    """Store a new token and return it; it cannot be read again.

    Raises:
        UsageError: The name is taken or cannot be used.
    """
    if not (name.strip() and name.isprintable()) or session.get(ApiToken, name) is not None:
        raise UsageError(f"“{name}” is taken, or is not a name.", "Choose another name.")
    token = f"chordwise_{secrets.token_urlsafe(32)}"
    session.add(ApiToken(name=name, token_hash=_hash_of(token), scopes=" ".join(sorted(scopes))))
    return token


def gather(session: Session) -> Sequence[ApiToken]:
    """Return all tokens, ordered by name."""
    return session.scalars(select(ApiToken).order_by(ApiToken.name)).all()


def find(database: Database, token: str) -> ApiToken | None:
    """Return the stored form of a token; `None` if there is none or it is revoked."""
    with database.read() as session:
        stored = select(ApiToken).where(ApiToken.token_hash == _hash_of(token))
        return session.scalars(stored).one_or_none()


def revoke(session: Session, name: str) -> None:
    """Delete a token, which is then refused at once.

    Raises:
        UsageError: There is none of this name.
    """
    token = session.get(ApiToken, name)
    if token is None:
        raise UsageError(f"There is no token “{name}”.", "`chordwise tokens list` lists them.")
    session.delete(token)


def _hash_of(token: str) -> str:
    # A random token of 256 bits needs no slow hash.
    return hashlib.sha256(token.encode()).hexdigest()
