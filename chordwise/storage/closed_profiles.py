"""Profiles that are closed to all but their readers, and the keys by which readers are known.

`migrations/row_security.py` has the policies that use them.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

from sqlalchemy import Text, delete, select, text
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.people import KEY_SETTING, OPERATOR, READING_AS
from chordwise.errors import ConfigurationError, UsageError
from chordwise.storage import audit_events
from chordwise.storage.record import Record


class ClosedProfile(Record):
    """A profile that only its readers and operators may read."""

    __tablename__ = "closed_profiles"

    profile: Mapped[str] = mapped_column(primary_key=True)
    readers: Mapped[list[str]] = mapped_column(ARRAY(Text()))


class ReaderKey(Record):
    """The secret by which a session shows who reads."""

    __tablename__ = "reader_keys"

    name: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)


class ReaderLogin(Record):
    """The reader to whom a login of other programs belongs."""

    __tablename__ = "reader_logins"

    role: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]


# Its role is that of the SQL of users; both settings end with the transaction.
_READ_AS = text(f"""
    SELECT
        set_config('{KEY_SETTING}', (SELECT key FROM reader_keys WHERE name = :reader), true),
        set_config('role', 'chordwise_reader', true)
    WHERE EXISTS (SELECT FROM closed_profiles)
""")


def restrict(session: Session) -> None:
    """Let the transaction of a request see what its reader may see; all if no profile is closed."""
    reader = READING_AS.get()
    if reader is not None:
        # An unidentified person has no key: the empty name is that of operators.
        session.execute(_READ_AS, {"reader": reader or None})


def close_new(session: Session, readers: Mapping[str, Collection[str] | None], name: str) -> None:
    """Close a profile that is to be closed and is not yet; its readers are changed by `update`."""
    by = readers.get(name)
    if by is not None and session.get(ClosedProfile, name) is None:
        _store(session, {name: by})


def update(session: Session, readers: Mapping[str, Collection[str] | None], actor: str) -> None:
    """Close profiles to all but their readers; one without readers in the settings is opened.

    Profiles that these settings do not name stay as they are: another file may name them.
    """
    stored = {row.profile: row.readers for row in session.scalars(select(ClosedProfile))}
    closed = {name: sorted(by) for name, by in readers.items() if by is not None}
    if opened := stored.keys() & (readers.keys() - closed.keys()):
        session.execute(delete(ClosedProfile).where(ClosedProfile.profile.in_(opened)))
        for name in sorted(opened):
            audit_events.record(session, actor, "opened profile", name)
    changed = {name: by for name, by in closed.items() if stored.get(name) != by}
    for name, by in sorted(changed.items()):
        audit_events.record(session, actor, "closed profile", f"{name}: {', '.join(by)}")
    if changed:
        _store(session, changed)
    elif opened:
        session.execute(_SECURE_ROWS)


_SECURE_ROWS = text("SELECT secure_rows()")


def _store(session: Session, closed: Mapping[str, Collection[str]]) -> None:
    for name, by in sorted(closed.items()):
        values = {"profile": name, "readers": sorted(by)}
        added = insert(ClosedProfile).values(values)
        session.execute(added.on_conflict_do_update(index_elements=["profile"], set_=values))
    names = {OPERATOR, *(reader for by in closed.values() for reader in by)}
    if missing := sorted(names.difference(session.scalars(select(ReaderKey.name)))):
        keys = [{"name": name, "key": secrets.token_urlsafe(32)} for name in missing]
        session.execute(insert(ReaderKey).values(keys).on_conflict_do_nothing())
    session.execute(_SECURE_ROWS)
    try:
        session.execute(text("SET LOCAL ROLE chordwise_reader"))
        session.execute(text("RESET ROLE"))
    except DBAPIError as error:
        raise ConfigurationError(
            "No profile can be closed: this role of the database may not become chordwise_reader.",
            "`chordwise migrate --print-roles` prints what an administrator grants.",
        ) from error


def require_reader(session: Session, name: str) -> None:
    """Check that a profile has a reader.

    Raises:
        UsageError: No profile has it.
    """
    if session.get(ReaderKey, name) is None:
        what = f"No profile has the reader “{name}”."
        raise UsageError(what, "Add the name to the `readers` of a profile.")
