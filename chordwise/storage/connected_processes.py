"""The workers and schedulers that are connected to the database, on whichever machine they run."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectedProcess:
    """Processes of one kind: their sessions, and the seconds since the last one did anything."""

    name: str
    sessions: int
    idle_seconds: float

    def __str__(self) -> str:
        counted = "1 session" if self.sessions == 1 else f"{self.sessions} sessions"
        return f"{counted} of a {self.name}, the last statement {self.idle_seconds:.0f} s ago"


# Each process gives its sessions a name that begins with its own; see `open_engine`.
_CONNECTED = text(
    """
    SELECT split_part(application_name, ' ', 2) AS name, count(*) AS sessions,
        min(extract(epoch FROM clock_timestamp() - coalesce(state_change, backend_start)))
            AS idle_seconds
    FROM pg_stat_activity
    WHERE datname = current_database() AND application_name ~ '^chordwise (worker|scheduler)'
    GROUP BY 1
    """
)


def connected(database: Session | Connection) -> dict[str, ConnectedProcess]:
    """Return the kinds of processes that are connected, by their names."""
    rows = database.execute(_CONNECTED).all()
    return {
        name: ConnectedProcess(name=name, sessions=sessions, idle_seconds=float(idle_seconds))
        for name, sessions, idle_seconds in rows
    }
