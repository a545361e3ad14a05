"""The rule of recovery for money: what a killed worker had reserved."""

from __future__ import annotations

from sqlalchemy.orm import Session

from chordwise.pipeline.context import Context
from chordwise.storage import budgets

_BATCH = 500


def abandoned_reservations(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all
    """Count requests as spent that nobody has settled in time."""
    return budgets.settle_abandoned(session, _BATCH)
