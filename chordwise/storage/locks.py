"""Locks between processes that a reader of the database cannot take.

Every role may take any advisory lock, and `pg_locks` shows the keys. Each of these locks is a view
on nothing instead: `LOCK TABLE` needs a right to write to it, which readers do not have. A view has
no rows, so nothing has to be vacuumed while it is locked, and a transaction that does nothing but
hold it has no transaction id and holds no snapshot (pg_stat_activity: backend_xid, backend_xmin).
"""

from __future__ import annotations

from enum import StrEnum


class Lock(StrEnum):
    """A lock, by the name of its view; it is held until the transaction ends."""

    LEADER = "leader_lock"
    LAST_ATTEMPT = "last_attempt_lock"
    READER_LOGIN = "reader_login_lock"

    def statement(self, *, wait: bool = True) -> str:
        """Return the statement that takes the lock; without `wait` it fails at once if taken."""
        return f"LOCK TABLE {self} IN SHARE UPDATE EXCLUSIVE MODE{'' if wait else ' NOWAIT'}"
