"""Profiles that are closed to all but their readers, and the keys by which readers are known.

`migrations/row_security.py` has the policies that use them.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

from sqlalchemy import Text, delete, select, text
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.errors import UsageError
from chordwise.storage.reader_keys import KEY_SETTING, OPERATOR, READING_AS
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


# Its role is that of the SQL of users; both settings end with the transaction.
_READ_AS = text(f"""
    SELECT
        set_config('{KEY_SETTING}', (
            SELECT key FROM reader_keys WHERE name = :reader AND name <> '{OPERATOR}'
        ), true),
        set_config('role', 'chordwise_reader', true)
""")


def restrict(session: Session) -> None:
    """Let the transaction of a request see what its reader may see."""
    reader = READING_AS.get()
    if reader is not None:
        session.execute(_READ_AS, {"reader": reader})


def close_profiles(session: Session, readers: Mapping[str, Collection[str] | None]) -> None:
    """Close profiles to all but their readers; one without readers in the settings is opened.

    Profiles that these settings do not name stay as they are: another file may name them.
    """
    stored = {row.profile: row.readers for row in session.scalars(select(ClosedProfile))}
    closed = {name: sorted(by) for name, by in readers.items() if by is not None}
    if {name: by for name, by in stored.items() if name in readers} == closed:
        return
    if opened := stored.keys() & (readers.keys() - closed.keys()):
        session.execute(delete(ClosedProfile).where(ClosedProfile.profile.in_(opened)))
    for name in sorted(name for name, by in closed.items() if stored.get(name) != by):
        values = {"profile": name, "readers": closed[name]}
        added = insert(ClosedProfile).values(values)
        session.execute(added.on_conflict_do_update(index_elements=["profile"], set_=values))
    names = {OPERATOR, *(reader for by in closed.values() for reader in by)}
    if missing := sorted(names.difference(session.scalars(select(ReaderKey.name)))):
        keys = [{"name": name, "key": secrets.token_urlsafe(32)} for name in missing]
        session.execute(insert(ReaderKey).values(keys).on_conflict_do_nothing())


def key_of(
    session: Session, readers: Mapping[str, Collection[str] | None], name: str = OPERATOR
) -> str:
    """Return the key of a reader, or the operator's; `readers` are those of the settings.

    Raises:
        UsageError: No profile has this reader.
    """
    close_profiles(session, readers)
    session.flush()
    row = session.get(ReaderKey, name)
    if row is None and name == OPERATOR:  # no profile has ever been closed
        return ""
    if row is None:
        what = f"No profile has the reader “{name}”."
        raise UsageError(what, "Add the name to the `readers` of a profile.")
    return row.key
