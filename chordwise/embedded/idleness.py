"""When a background stack may stop: it is unused, has no open work and expects none."""

from __future__ import annotations

import time
from typing import LiteralString

import psycopg

from chordwise.embedded.home import Home

_OPEN_WORK = """
SELECT EXISTS (
    SELECT 1 FROM jobs WHERE status IN ('queued', 'running', 'waiting', 'synthesizing')
) OR EXISTS (
    SELECT 1 FROM outbox WHERE sent_at IS NULL
) OR EXISTS (
    SELECT 1 FROM deliveries WHERE status = 'pending'
)
"""
_SCHEDULES = """
SELECT EXISTS (
    SELECT 1 FROM schedules WHERE enabled
) OR EXISTS (
    SELECT 1 FROM schedule_runs WHERE status IN ('due', 'running', 'waiting')
)
"""


def touch(home: Home) -> None:
    """Note that a command needs the stack now."""
    home.last_used_file.touch(mode=0o600)


def unused_seconds(home: Home) -> float:
    """Return the seconds since a command last needed the stack; 0 if that is unknown."""
    try:
        return max(0.0, time.time() - home.last_used_file.stat().st_mtime)
    except OSError:
        return 0.0


def has_open_work(database_url: str) -> bool:
    """Return whether jobs, messages or deliveries are unfinished, or schedules exist.

    True if the database cannot be reached.
    """
    address = database_url.replace("postgresql+psycopg://", "postgresql://", 1)
    try:
        with psycopg.connect(address, connect_timeout=5) as connection:
            return any(_finds(connection, query) for query in (_OPEN_WORK, _SCHEDULES))
    except psycopg.Error:
        return True


def _finds(connection: psycopg.Connection, query: LiteralString) -> bool:
    """Return the result of a query; false if its tables do not exist yet."""
    try:
        with connection.transaction():
            row = connection.execute(query).fetchone()
    except psycopg.errors.UndefinedTable:
        return False
    return row is None or bool(row[0])
