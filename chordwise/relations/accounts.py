"""The account of a run: its intakes, jobs, failures, costs, budgets and deliveries."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from psycopg import Connection

from chordwise.domain.identifiers import id_in
from chordwise.domain.states import (
    FAILED_INTAKES,
    UNFINISHED_JOBS,
    IntakeOutcome,
    IntakeStatus,
    JobStatus,
    RunStatus,
)
from chordwise.errors import UsageError
from chordwise.relations.relation import Relation, Row

RUNS = Relation(
    query="SELECT id, name, options, status, saved_as FROM runs",
    filters={
        "id": "id = %(id)s",
        "name": "name = %(name)s",
        "before": "id < %(before)s",
        "status": "status = %(status)s",
    },
    order="id DESC",
)
ACCOUNTS = Relation(
    query="""SELECT a.*, r.created_at, r.finished_at
FROM run_accounts AS a INNER JOIN runs AS r ON r.id = a.run_id""",
    filters={"run_ids": "a.run_id = ANY(%(run_ids)s)"},
    order="a.run_id DESC",
)
FAILURES = Relation(
    # Limited before they are sorted, as a run may have a hundred thousand.
    query="""SELECT
    what, source, analysis_type, state, error_code, error_message, hint, start_char, end_char
FROM (SELECT * FROM failures WHERE run = %(run)s LIMIT %(most)s) AS first""",
    order="what = 'intake' DESC, source, analysis_type, start_char NULLS FIRST",
)
NOTICES = Relation(
    query="SELECT source, reason, message, hint FROM intakes",
    filters={
        "run_id": """run_id = %(run_id)s AND outcome IN ('accepted', 'duplicate')
    AND message IS NOT NULL"""
    },
    order="id",
)
COSTS = Relation(
    query="SELECT run_id, calls, cache_hits, cost_usd, unpriced_calls FROM run_costs",
    filters={"run_ids": "run_id = ANY(%(run_ids)s)"},
)
_OF_RUN_AND_TODAY = """b.cap_usd IS NOT NULL AND b.scope IN (
    'run:' || %(run_id)s::text,
    'day:' || to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD')
)"""
_CAP_COLUMNS = """SELECT b.scope, b.cap_usd, b.spent_usd, b.reserved_usd,
    greatest(0, b.cap_usd - b.spent_usd - b.reserved_usd) AS left_usd"""
CAPS = Relation(
    query=f"{_CAP_COLUMNS}\nFROM budgets AS b",
    filters={"run_id": _OF_RUN_AND_TODAY},
    order="b.scope DESC",
)
BUDGETS = Relation(
    # With the numbers of ended calls of unknown and of estimated cost, which are few of all.
    query=f"""{_CAP_COLUMNS}, calls.*
FROM budgets AS b
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE c.cost_usd IS NULL) AS unpriced_calls,
        count(*) FILTER (WHERE c.cost_basis = 'estimated') AS estimated_calls
    FROM model_calls AS c
    LEFT JOIN jobs AS j ON j.id = c.job_id
    WHERE c.finished_at IS NOT NULL AND (c.cost_usd IS NULL OR c.cost_basis = 'estimated')
        AND CASE
            WHEN b.run_id IS NOT NULL THEN b.run_id IN (j.run_id, c.run_id)
            ELSE (c.started_at AT TIME ZONE 'UTC')::date = to_date(b.scope, '"day:"YYYY-MM-DD')
        END
) AS calls""",
    filters={"run_id": _OF_RUN_AND_TODAY},
    order="b.scope DESC",
)
DELIVERIES = Relation(
    query="SELECT kind, event, status, attempts, due_at, finished_at, last_error FROM deliveries",
    filters={"run_id": "run_id = %(run_id)s AND status <> 'skipped'"},
    order="id",
)


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
        return sum(self.outcomes[outcome] for outcome in FAILED_INTAKES)

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
        return sum(self.states[status] for status in UNFINISHED_JOBS)

    @property
    def is_complete(self) -> bool:
        """Whether every item was taken in and every job succeeded."""
        is_taken_in = self.intake_status == IntakeStatus.FINISHED and not self.not_taken
        has_succeeded = self.states[JobStatus.SUCCEEDED] == sum(self.states.values())
        return is_taken_in and not self.not_accepted and has_succeeded

    @classmethod
    def of(cls, row: Row) -> Account:
        """Return the account in a row of `ACCOUNTS`."""
        names = cls.__dataclass_fields__.keys() - {"outcomes", "states"}
        return cls(
            outcomes={outcome.value: row[outcome.value] for outcome in IntakeOutcome},
            states={status.value: row[status.value] for status in JobStatus},
            **{name: row[name] for name in names},
        )


def find(connection: Connection, name_or_id: str) -> Row:
    """Return the run with this name or id; `latest` is the newest.

    Raises:
        UsageError: No such run exists.
    """
    by_name: dict[str, object] = {"name": name_or_id}
    if name_or_id == "latest":
        by_name = {}
    elif run_id := id_in(name_or_id):
        by_name = {"id": run_id}
    for run in RUNS.read(connection, by_name, limit=1):
        return run
    raise UsageError(f"There is no run “{name_or_id}”.", "`chordwise runs` lists the runs.")


def of_run(connection: Connection, run_id: uuid.UUID) -> Account:
    """Return the account of a run."""
    return Account.of(ACCOUNTS.one(connection, {"run_ids": [run_id]}))


def newest(
    connection: Connection, limit: int, *, before: uuid.UUID | None = None, status: str = ""
) -> Sequence[Account]:
    """Return the accounts of the newest runs, optionally only older ones or with one status."""
    # Select the runs first, as the view sums over all intakes and jobs of each selected run.
    runs = RUNS.read(connection, {"before": before, "status": status}, limit=limit)
    run_ids = [run["id"] for run in runs]
    return [Account.of(row) for row in ACCOUNTS.read(connection, {"run_ids": run_ids})]


def failures(connection: Connection, run: str, limit: int) -> Sequence[Row]:
    """Return failures of the run with this name, intakes first."""
    _set_reading(connection, "off")
    rows = FAILURES.read(connection, {"run": run, "most": limit})
    _set_reading(connection, "DEFAULT")
    return rows


def _set_reading(connection: Connection, value: LiteralString) -> None:
    """Set the planner options of plans that read a whole table before they return a row."""
    for method in ("seqscan", "hashjoin", "mergejoin"):
        connection.execute(f"SET LOCAL enable_{method} = {value}")
