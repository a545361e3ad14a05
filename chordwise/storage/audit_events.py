"""The audit log: sign-ins, exports and changes of tokens.

The view `audit_log` adds decisions and erasures, which have tables of their own.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.storage import clock
from chordwise.storage.record import Identity, Record


class AuditEvent(Record):
    """An action of a person; rows are only added."""

    __tablename__ = "audit_events"

    id: Mapped[Identity]
    occurred_at: Mapped[datetime] = mapped_column(server_default=clock.database_now())
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]


def record(session: Session, actor: str, action: str, subject: str = "") -> None:
    """Add an event to the audit log."""
    session.add(AuditEvent(actor=actor, action=action, subject=subject))


def about_statement(statement: str) -> str:
    """Return the subject of an exported statement, whose own words may repeat a document."""
    return f"SQL with SHA-256 {hashlib.sha256(statement.encode()).hexdigest()}"
