"""The budgets of a run: what is spent, reserved and left of each cap."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy.orm import Session

from chordwise.storage import budgets
from chordwise.storage.budgets import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLine:
    """What a cap has come to; `scope` is run:ID or day:YYYY-MM-DD (UTC).

    `unpriced_calls` have an unknown cost: what was reserved for them, if anything, counts as spent.
    """

    scope: str
    cap_usd: Decimal
    spent_usd: Decimal
    reserved_usd: Decimal
    left_usd: Decimal
    unpriced_calls: int


def of_run(session: Session, run_id: uuid.UUID) -> Sequence[BudgetLine]:
    """Return what the caps of a run and of today have come to; none where there are no caps."""
    return [
        _line(account, account.cap_usd, budgets.unpriced_calls(session, account))
        for account in budgets.of_run(session, run_id)
        if account.cap_usd is not None
    ]


def _line(account: Budget, cap_usd: Decimal, unpriced_calls: int) -> BudgetLine:
    return BudgetLine(
        scope=account.scope,
        cap_usd=cap_usd,
        spent_usd=account.spent_usd,
        reserved_usd=account.reserved_usd,
        left_usd=max(Decimal(0), cap_usd - account.spent_usd - account.reserved_usd),
        unpriced_calls=unpriced_calls,
    )
