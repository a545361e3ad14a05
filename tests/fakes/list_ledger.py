"""A ledger in memory."""

from __future__ import annotations

from uuid import UUID, uuid4

from chordwise.llm.middleware.metered import CallOutcome, CallStart, NullLedger


class ListLedger(NullLedger):
    """Keeps the rows in memory; a row without an outcome is an unfinished call."""

    def __init__(self) -> None:
        self.rows: dict[UUID, tuple[CallStart, CallOutcome | None]] = {}

    def begin(self, start: CallStart) -> UUID:
        call_id = uuid4()
        self.rows[call_id] = (start, None)
        return call_id

    def finish(self, call_id: UUID, outcome: CallOutcome) -> None:
        self.rows[call_id] = (self.rows[call_id][0], outcome)

    def withdraw(self, call_id: UUID) -> None:
        del self.rows[call_id]

    @property
    def only_row(self) -> tuple[CallStart, CallOutcome | None]:
        (row,) = self.rows.values()
        return row
