"""The closing account of a run: its intakes, its jobs, and its failures."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import RowMapping, select, text
from sqlalchemy.orm import Session

from chordwise.domain.states import (
    FAILED_INTAKES,
    UNFINISHED_JOBS,
    IntakeOutcome,
    IntakeStatus,
    JobStatus,
    RunStatus,
)
from chordwise.storage import budgets
from chordwise.storage.budgets import Budget
from chordwise.storage.record import copied
from chordwise.storage.runs import Run

_ACCOUNTS = """
SELECT a.*, r.created_at, r.finished_at
FROM run_accounts AS a INNER JOIN runs AS r ON r.id = a.run_id
"""
_FAILURES = """
SELECT what, source, analysis_type, state, error_code, error_message, hint, start_char, end_char
FROM (SELECT * FROM failures WHERE run = :run LIMIT :limit) AS first
ORDER BY what = 'intake' DESC, source, analysis_type, start_char NULLS FIRST
"""
_NOTICES = """
SELECT source, reason, message, hint FROM intakes
WHERE run_id = :run_id AND outcome IN ('accepted', 'duplicate') AND message IS NOT NULL
ORDER BY id LIMIT :limit
"""
_JOBS = """
SELECT
    j.id AS job_id, j.document_id, i.source, j.analysis_type, j.model, j.status,
    j.chunk_count AS chunks,
    (SELECT count(*) FROM chunks AS c WHERE c.job_id = j.id AND c.status = 'succeeded')
        AS chunks_done,
    r.confidence, r.coverage, j.finished_at,
    j.reused_from IS NOT NULL AND j.status = 'succeeded' AS reused
FROM jobs AS j
INNER JOIN intakes AS i ON i.id = j.intake_id
LEFT JOIN results AS r ON r.job_id = j.id
WHERE j.run_id = :run_id AND j.id > :after
ORDER BY j.id
LIMIT :limit
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Two balances: intakes found by outcome, and jobs planned by status.

    `intakes_balance` is `None` while the intake is running, and false after an interruption, if
    some items were found but not taken in. `intakes_found` is `None` for a run without a list of
    the items found, until it is finished.
    """

    run_id: uuid.UUID
    run: str
    status: str
    created_at: datetime
    finished_at: datetime | None
    intakes_found: int | None
    outcomes: Mapping[str, int]
    intakes_balance: bool | None
    jobs_planned: int
    states: Mapping[str, int]
    jobs_balance: bool
    reused: int
    intake_status: str

    @property
    def not_accepted(self) -> int:
        """The number of items that were read but could not be taken in, without duplicates."""
        return sum(self.outcomes[each] for each in FAILED_INTAKES)

    @property
    def not_taken(self) -> int:
        """The number of items that were found but not read."""
        return self.outcomes[IntakeOutcome.NOT_TAKEN]

    @property
    def taken(self) -> int:
        """The number of items that were read, with any outcome."""
        return sum(self.outcomes.values()) - self.not_taken

    @property
    def is_interrupted(self) -> bool:
        """Whether the intake stopped before its end and can be resumed."""
        is_cancelled = self.status == RunStatus.CANCELLED
        return self.intake_status == IntakeStatus.INTERRUPTED and not is_cancelled

    @property
    def total(self) -> int:
        """The number of jobs in any state."""
        return sum(self.states.values())

    @property
    def ended_badly(self) -> int:
        """The number of jobs that ended without a complete answer, and of items not accepted."""
        ended = self.total - self.unfinished - self.states[JobStatus.SUCCEEDED]
        return ended + self.not_accepted

    @property
    def problems(self) -> int:
        """The number of failed, partial and paused jobs, and of items not accepted."""
        return self.ended_badly + self.states[JobStatus.PAUSED]

    @property
    def unfinished(self) -> int:
        """The number of jobs that have not ended."""
        return sum(self.states[each] for each in UNFINISHED_JOBS)

    @property
    def is_complete(self) -> bool:
        """Whether every item was taken in and every job succeeded."""
        is_taken_in = self.intake_status == IntakeStatus.FINISHED and not self.not_taken
        has_succeeded = self.states[JobStatus.SUCCEEDED] == sum(self.states.values())
        return is_taken_in and not self.not_accepted and has_succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An intake, a job or a chunk (`what`) that failed or is incomplete."""

    what: str
    source: str
    analysis_type: str | None
    state: str
    error_code: str | None
    error_message: str | None
    hint: str | None
    start_char: int | None
    end_char: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A document that was taken in and needs review, with the reason and a hint."""

    source: str
    reason: str
    message: str
    hint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLine:
    """A job in a list; `chunks` is `None` before the document is split, and for a reused answer."""

    job_id: uuid.UUID
    document_id: uuid.UUID
    source: str
    analysis_type: str
    model: str
    status: str
    chunks: int | None
    chunks_done: int
    confidence: float | None
    coverage: float | None
    reused: bool
    finished_at: datetime | None


def of_run(session: Session, run_id: uuid.UUID) -> Account:
    """Return the account of a run."""
    rows = session.execute(text(f"{_ACCOUNTS} WHERE a.run_id = :run_id"), {"run_id": run_id})
    return _account(rows.mappings().one())


def newest(
    session: Session, limit: int, *, before: uuid.UUID | None = None, status: str = ""
) -> Sequence[Account]:
    """Return the accounts of the newest runs, optionally only older ones or with one status."""
    # Select the runs first, as the view sums over all intakes and jobs of each selected run.
    ids = newest_ids(session, limit, before=before, status=status)
    of_ids = text(f"{_ACCOUNTS} WHERE a.run_id = ANY(:ids) ORDER BY a.run_id DESC")
    return [_account(row) for row in session.execute(of_ids, {"ids": ids}).mappings()]


def newest_ids(
    session: Session, limit: int, *, before: uuid.UUID | None = None, status: str = ""
) -> Sequence[uuid.UUID]:
    """Return the ids of the newest runs, optionally only older than one, or with one status."""
    chosen = select(Run.id).order_by(Run.id.desc()).limit(limit)
    if before is not None:
        chosen = chosen.where(Run.id < before)
    if status:
        chosen = chosen.where(Run.status == status)
    return session.scalars(chosen).all()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCost:
    """The cost of a run so far; `cost_usd` is `None` if no cost is known."""

    calls: int
    cache_hits: int
    cost_usd: Decimal | None
    unpriced_calls: int


def costs(session: Session, run_ids: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, RunCost]:
    """Return the costs of runs; a run without calls has no entry.

    This reads all calls of these runs, which is slow for a hundred thousand calls.
    """
    rows = session.execute(text(_COSTS), {"ids": list(run_ids)})
    return {row.run_id: copied(RunCost, row) for row in rows}


_COST_COLUMNS = ", ".join(RunCost.__dataclass_fields__)
_COSTS = f"SELECT run_id, {_COST_COLUMNS} FROM run_costs WHERE run_id = ANY(:ids)"  # noqa: S608 - names of columns


def failures(session: Session, run: str, limit: int) -> Sequence[Failure]:
    """Return failures of the run with this name, intakes first.

    They are limited before they are sorted, as a run may have a hundred thousand.
    """
    _set_reading(session, "off")
    rows = session.execute(text(_FAILURES), {"run": run, "limit": limit}).mappings().all()
    _set_reading(session, "DEFAULT")
    return [Failure(**row) for row in rows]


def _set_reading(session: Session, value: str) -> None:
    """Set the planner options of plans that read a whole table before they return a row."""
    for method in ("seqscan", "hashjoin", "mergejoin"):
        session.execute(text(f"SET LOCAL enable_{method} = {value}"))


def notices(session: Session, run_id: uuid.UUID, limit: int) -> Sequence[Notice]:
    """Return the documents of a run that were taken in and need review."""
    rows = session.execute(text(_NOTICES), {"run_id": run_id, "limit": limit})
    return [Notice(**row) for row in rows.mappings()]


def jobs_of_run(
    session: Session, run_id: uuid.UUID, limit: int, after: uuid.UUID | None = None
) -> Sequence[JobLine]:
    """Return the jobs of a run in the order of their intake, starting after `after`."""
    # Ids ascend with the clock and a job is created after its run, so the primary key limits the
    # scan. The minute allows for a slow clock of the machine that takes in.
    first = uuid.UUID(int=run_id.int - (_MINUTE_MILLISECONDS << 80))
    known = {"run_id": run_id, "limit": limit, "after": after or first}
    rows = session.execute(text(_JOBS), known)
    return [JobLine(**row) for row in rows.mappings()]


_MINUTE_MILLISECONDS = 60_000


def _account(row: RowMapping) -> Account:
    names = Account.__dataclass_fields__.keys() - {"outcomes", "states"}
    return Account(
        outcomes={each.value: row[each.value] for each in IntakeOutcome},
        states={each.value: row[each.value] for each in JobStatus},
        **{name: row[name] for name in names},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """The state of a budget with a cap; `scope` is run:ID or day:YYYY-MM-DD (UTC)."""

    scope: str
    cap_usd: Decimal
    spent_usd: Decimal
    reserved_usd: Decimal
    left_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLine(Cap):
    """The state of a budget with a cap, and its number of calls with unknown and estimated cost.

    Amounts reserved for calls of unknown cost count as spent.
    """

    unpriced_calls: int
    estimated_calls: int


def caps(session: Session, run_id: uuid.UUID) -> Sequence[Cap]:
    """Return the state of the caps of a run and of today; budgets without a cap are omitted."""
    return [cap for _, cap in _capped(session, run_id)]


def caps_of_run(session: Session, run_id: uuid.UUID) -> Sequence[BudgetLine]:
    """Return the caps with their uncertain calls; this reads all calls of both budgets."""
    lines = []
    for account, cap in _capped(session, run_id):
        unpriced, estimated = budgets.uncertain_calls(session, account)
        lines.append(BudgetLine(**asdict(cap), unpriced_calls=unpriced, estimated_calls=estimated))
    return lines


def _capped(session: Session, run_id: uuid.UUID) -> Iterator[tuple[Budget, Cap]]:
    for account in budgets.of_run(session, run_id):
        if account.cap_usd is not None:
            left_usd = account.cap_usd - account.spent_usd - account.reserved_usd
            yield account, copied(Cap, account, left_usd=max(Decimal(0), left_usd))
