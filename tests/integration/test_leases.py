"""The contract of leases: one holder at a time, and no attempt is lost or counted twice."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import pytest
from hypothesis import strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import select, true
from sqlalchemy.orm import Session

from chordwise.pipeline.recovery.recover import reopen_expired
from chordwise.settings import Settings
from chordwise.storage import claims, inbox_files, intakes, leases, schedules
from chordwise.storage.chunks import Chunk
from chordwise.storage.inbox_files import Holder, InboxFile
from chordwise.storage.intakes import ListedFile
from chordwise.storage.jobs import Job
from chordwise.storage.leases import Leased, StepRecord
from chordwise.storage.runs import Run
from chordwise.storage.schedules import ScheduleRun
from tests.fakes.pipeline import PARAGRAPH, Pipeline, a_pipeline, with_settings
from tests.fakes.state_machines import run_machine

LEASE = timedelta(hours=1)
HOLDERS = [uuid.uuid5(uuid.NAMESPACE_OID, name) for name in ("first", "second", "third")]
NEW_ROWS = """
UPDATE jobs SET status = 'running', open_chunks = 0 WHERE id = '{job}';
UPDATE chunks SET status = '{chunk}';
UPDATE runs SET intake_finished_at = NULL, lease_token = NULL, lease_until = NULL;
INSERT INTO schedules (id, name, origin, enabled, cron, time_zone, run, folder, catch_up,
    expires_after_hours)
VALUES ('{job}', 'nightly', 'database', true, '0 2 * * *', 'UTC', 'version', '/', 'none', 1);
INSERT INTO schedule_runs (id, schedule_id, schedule, run, due_at, trigger, status, expires_at)
VALUES ('{job}', '{job}', 'nightly', 'version', now(), 'clock', 'due', now() + interval '1 day');
INSERT INTO inbox_files (id, folder, name, raw_name, byte_count, modified_ns, profile, status)
VALUES ('{job}', '/in', 'a.txt', 'a.txt', 1, 1, 'x', 'claimed');
INSERT INTO intakes (id, run_id, source, outcome)
SELECT '{job}', id, 'a.txt', 'not_taken' FROM runs;
INSERT INTO listed_files (id, run_id, position, source, follow_symlinks, status)
SELECT '{job}', id, 0, 'a.txt', false, '{listed}' FROM runs;
"""
Claim = Callable[[Session, uuid.UUID, uuid.UUID], object]
CLAIMS: dict[type[Leased], Claim] = {
    Chunk: lambda session, id_, token: claims.claim_chunks(
        session, [(id_, token)], LEASE, 1_000_000
    ),
    Job: lambda session, id_, token: claims.claim_syntheses(
        session, [(id_, token)], LEASE, 1_000_000
    ),
    Run: lambda session, id_, token: intakes.claim(session, id_, token, LEASE, by_force=False),
    InboxFile: lambda session, _, token: inbox_files.claim_unread(
        session, Holder(token=token, duration=LEASE), true(), [], 1
    ),
    ListedFile: lambda session, _, token: intakes.claim_files(
        session, session.scalars(select(Run.id)).one(), token, LEASE, 1
    ),
    ScheduleRun: lambda session, _, token: schedules.claim(session, token, LEASE),
}


@dataclass
class Expected:
    """The state that the row must have; `attempts` are those that count."""

    holder: uuid.UUID | None = None
    has_expired: bool = False
    attempts: int = 0


class Leases(RuleBasedStateMachine):
    """Processes claim, extend, release and lose one row, die, and recovery looks in between."""

    def __init__(self, pipeline: Pipeline, table: type[Leased]) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.table = table
        self.expected = Expected()

    @initialize()
    def start(self) -> None:
        self.pipeline.execute("TRUNCATE runs, documents, outbox, schedules, inbox_files CASCADE")
        ((job_id, chunk_id),) = self.pipeline.fan_out(PARAGRAPH)
        state = "pending" if self.table is Chunk else "succeeded"
        listed = "waiting" if self.table is ListedFile else "listed"
        for statement in NEW_ROWS.format(job=job_id, chunk=state, listed=listed).split(";"):
            if statement.strip():
                self.pipeline.execute(statement)
        run_id = cast("uuid.UUID", self.pipeline.value("SELECT id FROM runs"))
        self.id = {Chunk: chunk_id, Run: run_id}.get(self.table, job_id)
        self.expected = Expected()

    def write(self, change: Callable[[Session], object]) -> object:
        with self.pipeline.context.database.write() as session:
            return change(session)

    @rule(token=strategies.sampled_from(HOLDERS))
    def claim(self, token: uuid.UUID) -> None:
        expected = self.expected
        self.write(lambda session: CLAIMS[self.table](session, self.id, token))
        if expected.holder is None or expected.has_expired:
            is_again = expected.holder == token and self.table is InboxFile
            self.expected = Expected(token, attempts=expected.attempts + (not is_again))

    @rule()
    def stop_answering(self) -> None:
        """A process dies, or is suspended for longer than its lease."""
        self.pipeline.expire_leases()
        self.expected.has_expired = self.expected.holder is not None

    @rule(tokens=strategies.sets(strategies.sampled_from(HOLDERS)))
    def extend(self, tokens: set[uuid.UUID]) -> None:
        kept = self.write(lambda session: leases.extend(session, self.table, tokens, LEASE))
        assert kept == {self.expected.holder} & tokens
        self.expected.has_expired &= not kept

    @rule(token=strategies.sampled_from(HOLDERS))
    def release(self, token: uuid.UUID) -> None:
        """Only the holder can; its attempt does not count."""
        if issubclass(self.table, StepRecord):
            step = self.table
            released = self.write(lambda session: leases.release(session, step, self.id, token))
            assert released == (token == self.expected.holder)
        elif self.table is InboxFile:
            holder = Holder(token=token, duration=LEASE)
            self.write(lambda session: inbox_files.release(session, holder))
        else:
            return
        if token == self.expected.holder:
            self.expected = Expected(attempts=self.expected.attempts - 1)

    @rule(token=strategies.sampled_from(HOLDERS))
    def abandon(self, token: uuid.UUID) -> None:
        """The database failed before a model was called."""
        work = self.table
        if work is Chunk or work is Job:
            abandoned = self.write(lambda session: claims.abandon(session, work, self.id, token))
            assert abandoned == (token == self.expected.holder)
            if abandoned:
                self.expected = Expected(attempts=self.expected.attempts - 1)

    @rule()
    def recover_twice(self) -> None:
        """Recovery takes the leases of chunks and syntheses; others are taken by the next claim."""
        for _ in range(2):
            self.write(lambda session: reopen_expired(self.pipeline.context, session))
        if self.expected.has_expired and self.table in (Chunk, Job):
            self.expected = Expected(attempts=self.expected.attempts)

    @invariant()
    def is_as_expected(self) -> None:
        columns = "lease_token, attempts" if hasattr(self.table, "attempts") else "lease_token, 0"
        is_at_work = self.table.is_at_work()
        query = select(self.table.id).where(self.table.id == self.id, is_at_work)
        with self.pipeline.context.database.read() as session:
            works = session.scalar(query) is not None
        statement = f"SELECT {columns} FROM {self.table.__tablename__} WHERE id = '{self.id}'"  # noqa: S608 - our own names
        ((token, count),) = self.pipeline.rows(statement)
        assert (token if works else None, count) == (self.expected.holder, self.counted())

    def counted(self) -> int:
        return self.expected.attempts if hasattr(self.table, "attempts") else 0


@pytest.mark.parametrize("table", CLAIMS, ids=lambda table: table.__tablename__)
@pytest.mark.parametrize("examples", [4, pytest.param(200, marks=pytest.mark.nightly)])
def test_a_row_has_one_holder_at_a_time(
    settings: Settings, table: type[Leased], examples: int
) -> None:
    pipeline = a_pipeline(with_settings(settings, "pipeline", max_attempts=1_000))

    def machine() -> Leases:
        return Leases(pipeline, table)

    run_machine(machine, examples)
