"""A database in which jobs spend money."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import text

from chordwise.pipeline.models import budgets as spending
from chordwise.pipeline.models.budgets import JobBudget, Reservations
from chordwise.settings import Settings
from chordwise.storage import budgets
from chordwise.storage.budgets import Budget
from chordwise.storage.database import Database, open_engine
from tests.fakes.pipeline import with_settings

_RUN = """
INSERT INTO runs (id, name, status, options, type_count) VALUES (:run, :name, 'open', '{}', 1)
"""
_DOCUMENT = """
INSERT INTO documents (id, sha256, source, media_type, text, character_count, normalization)
VALUES (:document, :name, 'a.txt', 'text/plain', 'text', 4, '{}')
"""
_INTAKE = """
INSERT INTO intakes (id, run_id, source, outcome, document_id)
VALUES (:intake, :run, 'a.txt', 'accepted', :document)
"""
_JOB = """
INSERT INTO jobs (id, run_id, intake_id, document_id, analysis_type, options, options_hash, model,
    status, attempts, postponements)
VALUES (:job, :run, :intake, :document, 'summary', '{}', 'h', 'm', 'running', 0, 0)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """A database in which jobs spend money."""

    settings: Settings
    database: Database

    def job(self, cap_usd: Decimal | None = None) -> tuple[uuid.UUID, uuid.UUID]:
        """Make a run with one job; return the ids of both."""
        names = ("run", "document", "intake", "job")
        ids = {name: uuid.uuid4() for name in names}
        values = {**ids, "name": str(ids["run"])}
        with self.database.write() as session:
            for statement in (_RUN, _DOCUMENT, _INTAKE, _JOB):
                session.execute(text(statement), values)
            if cap_usd is not None:
                spending.change_cap(session, ids["run"], cap_usd)
        return ids["run"], ids["job"]

    def budget(self, job_id: uuid.UUID, usd_per_day: Decimal | None = None) -> JobBudget:
        """Return the budget of a job for a worker with this cap for the day."""
        limited = with_settings(self.settings, "budget", usd_per_day=usd_per_day)
        return JobBudget(reservations=Reservations(limited, self.database), job_id=job_id)

    def account(self, scope: str) -> tuple[Decimal, Decimal]:
        """Return what is spent and what is reserved."""
        with self.database.read() as session:
            found = session.get_one(Budget, scope)
            return found.spent_usd, found.reserved_usd

    def day(self) -> tuple[Decimal, Decimal]:
        """Return what is spent and reserved on the only day there is."""
        with self.database.read() as session:
            statement = text("SELECT scope FROM budgets WHERE run_id IS NULL")
            scope = str(session.execute(statement).scalar_one())
        return self.account(scope)

    def give_up(self) -> int:
        """Let every reservation run out, and apply the rule of recovery."""
        with self.database.write() as session:
            session.execute(
                text("UPDATE budget_reservations SET expires_at = now() - '1s'::interval")
            )
            return budgets.settle_abandoned(session, 1_000)


@contextmanager
def a_bank(settings: Settings) -> Iterator[Bank]:
    """Open the database with as many connections as there are threads."""
    assert settings.database_url is not None
    engine = open_engine(settings.database_url, pool_size=20)
    yield Bank(settings=settings, database=Database(engine))
    engine.dispose()
