"""Tests that spending never exceeds a cap, even if simulated workers are killed."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from random import Random

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from chordwise.domain import money
from chordwise.errors import BudgetExceededError, BudgetReservedError, ChordwiseError, UsageError
from chordwise.pipeline.models import budgets as spending
from chordwise.settings import Settings
from chordwise.storage import budgets
from chordwise.storage.budgets import Budget, Reservation
from chordwise.storage.chunk_work import CallEntry, store_entries
from chordwise.storage.database import Database, open_engine
from chordwise.storage.group_commit import GroupCommit
from tests.fakes.counting import recorded

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

CALL: dict[str, object] = {
    "stage": "analyze",
    "provider": "p",
    "model": "m",
    "prompt_version": "v@1",
    "language_model": True,
    "attempt": 1,
    "sample": 1,
    "cache_hit": False,
}
SHORT = timedelta(seconds=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobBudget:
    """Reserves and settles the money of a job's calls, as its ledger does."""

    enter: Callable[[CallEntry, timedelta], ChordwiseError | None]
    job_id: uuid.UUID
    usd_per_day: Decimal | None

    def reserve(self, max_usd: Decimal) -> uuid.UUID:
        call_id = uuid.uuid4()
        refusal = self.enter(self.entry(call_id, max_usd), SHORT)
        if refusal is not None:
            raise refusal
        return call_id

    def entry(self, call_id: uuid.UUID, max_usd: Decimal) -> CallEntry:
        reservation = Reservation(max_usd=max_usd, usd_per_day=self.usd_per_day)
        ids = {"id": str(call_id), "job_id": str(self.job_id), "chunk_id": None}
        begun = CALL | ids | {"reserved_usd": reservation.amount_usd}
        return CallEntry(begun=begun, reservation=reservation, lasts=timedelta(minutes=1))

    def settle(self, call_id: uuid.UUID, cost_usd: Decimal | None) -> None:
        self.enter(CallEntry(ended=[ended(call_id, cost_usd)]), SHORT)


def ended(call_id: uuid.UUID, cost_usd: Decimal | None) -> dict[str, object]:
    charged_usd = None if cost_usd is None else money.rounded_up(cost_usd)
    return {"id": str(call_id), "cost_usd": cost_usd, "charged_usd": charged_usd}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """A database in which jobs spend money."""

    database: Database

    def job(self, cap_usd: Decimal | None = None) -> tuple[uuid.UUID, uuid.UUID]:
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
        enter = GroupCommit(self.database.transaction, store_entries).commit
        return JobBudget(enter=enter, job_id=job_id, usd_per_day=usd_per_day)

    def account(self, scope: str) -> tuple[Decimal, Decimal]:
        with self.database.read() as session:
            budget = session.get_one(Budget, scope)
            return budget.spent_usd, budget.reserved_usd

    def day(self) -> tuple[Decimal, Decimal]:
        with self.database.read() as session:
            statement = text("SELECT scope FROM budgets WHERE run_id IS NULL")
            scope = str(session.execute(statement).scalar_one())
        return self.account(scope)

    def give_up(self) -> int:
        with self.database.write() as session:
            session.execute(text("UPDATE model_calls SET expires_at = now() - '1s'::interval"))
            return budgets.settle_abandoned(session, 1_000)


@pytest.fixture
def bank(settings: Settings) -> Iterator[Bank]:
    assert settings.database_url is not None
    engine = open_engine(settings.database_url, pool_size=20)
    yield Bank(database=Database(engine))
    engine.dispose()


@pytest.mark.parametrize(
    ("reserved", "cost", "spent"),
    [("0.9", "0.1", "0.1"), ("0.9", None, "0.9"), ("0.000000001", "0.0000000005", "0.00000001")],
)
def test_an_unspent_part_of_a_reservation_is_released(
    bank: Bank, reserved: str, cost: str | None, spent: str
) -> None:
    """The cost is never counted too low; the answer to a commit may be lost, which is repeated."""
    run_id, job_id = bank.job(Decimal(1))
    budget = bank.budget(job_id)

    reservation = budget.reserve(Decimal(reserved))
    meanwhile = bank.account(budgets.scope_of_run(run_id))
    for _ in range(2):
        budget.settle(reservation, None if cost is None else Decimal(cost))

    assert meanwhile == (Decimal(0), max(Decimal(reserved), Decimal("0.00000001")))
    assert bank.account(budgets.scope_of_run(run_id)) == bank.day() == (Decimal(spent), Decimal(0))


def test_reserved_money_is_waited_for_and_spent_money_is_not(bank: Bank) -> None:
    """A refusal is not final while calls in progress may release money."""
    _, job_id = bank.job(Decimal(1))
    budget = bank.budget(job_id)
    reservation = budget.reserve(Decimal("0.6"))

    with pytest.raises(BudgetReservedError) as waiting:
        budget.reserve(Decimal("0.6"))
    budget.settle(reservation, Decimal("0.6"))
    said = r"\$1\.00 does not cover .*: \$0\.60 has been spent"
    with pytest.raises(BudgetExceededError, match=said):
        budget.reserve(Decimal("0.6"))

    assert waiting.value.is_throttling


def test_the_daily_cap_limits_all_runs_together(bank: Bank) -> None:
    """A changed cap applies at once."""
    first, second = (bank.budget(bank.job()[1], Decimal(1)) for _ in range(2))
    reservation = first.reserve(Decimal("0.7"))
    first.settle(reservation, Decimal("0.7"))

    with pytest.raises(BudgetExceededError) as error:
        second.reserve(Decimal("0.4"))

    assert error.value.hint.endswith("or raise budget.usd_per_day and run it now.")
    assert "ends at midnight UTC" in error.value.hint
    bank.budget(second.job_id, Decimal(2)).reserve(Decimal("0.4"))
    assert bank.day() == (Decimal("0.7"), Decimal("0.4"))


def test_a_new_day_begins_with_an_empty_account(bank: Bank) -> None:
    """Each day has a separate account; a reservation of yesterday is settled there."""
    _, job_id = bank.job()
    budget = bank.budget(job_id, Decimal(1))
    reservation = budget.reserve(Decimal("0.9"))
    with bank.database.write() as session:
        session.execute(text("UPDATE budgets SET scope = 'day:2001-01-01' WHERE run_id IS NULL"))
        session.execute(text("UPDATE model_calls SET started_at = '2001-01-01T12:00Z'"))

    budget.reserve(Decimal("0.9"))
    budget.settle(reservation, Decimal("0.8"))

    assert bank.account("day:2001-01-01") == (Decimal("0.8"), Decimal(0))


def test_a_new_cap_includes_earlier_spending(bank: Bank) -> None:
    """The ledger records what a run cost before a budget was set."""
    run_id, job_id = bank.job()
    with bank.database.write() as session:
        session.execute(
            text(
                "INSERT INTO model_calls (id, job_id, stage, provider, model, language_model,"
                " prompt_version, attempt, cache_hit, cost_usd)"
                " VALUES (:id, :job, 'analyze', 'p', 'm', true, 'v@1', 1, false, 0.75)"
            ),
            {"id": uuid.uuid4(), "job": job_id},
        )

    with bank.database.write() as session:
        spending.change_cap(session, run_id, Decimal(1))

    assert bank.account(budgets.scope_of_run(run_id)) == (Decimal("0.75"), Decimal(0))
    with pytest.raises(UsageError, match="spent"), bank.database.write() as session:
        spending.change_cap(session, run_id, Decimal("0.5"))
    with pytest.raises(BudgetExceededError):
        bank.budget(job_id, Decimal(5)).reserve(Decimal("0.3"))
    bank.budget(job_id, Decimal(5)).reserve(Decimal("0.2"))
    assert bank.day() == (Decimal("0.75"), Decimal("0.2"))


def test_a_killed_worker_counts_as_having_spent_its_reservation(bank: Bank) -> None:
    run_id, job_id = bank.job(Decimal(1))
    budget = bank.budget(job_id)
    reservation = budget.reserve(Decimal("0.9"))

    with bank.database.write() as session:
        before_it_ran_out = budgets.settle_abandoned(session, 10)
    given_up = bank.give_up()
    abandoned = bank.account(budgets.scope_of_run(run_id))
    budget.settle(reservation, Decimal("0.1"))

    assert (before_it_ran_out, given_up) == (0, 1)
    assert abandoned == (Decimal("0.9"), Decimal(0))
    assert bank.account(budgets.scope_of_run(run_id)) == (Decimal("0.1"), Decimal(0))


@dataclass(slots=True, kw_only=True)
class Provider:
    """Charges for calls and records the sum of each run; thread-safe."""

    charged: dict[uuid.UUID, Decimal] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def charge(self, run_id: uuid.UUID, usd: Decimal) -> None:
        with self._lock:
            self.charged[run_id] = self.charged.get(run_id, Decimal(0)) + usd


@dataclass(slots=True, kw_only=True)
class SimulatedWorker:
    """Makes calls repeatedly; is sometimes killed during a call."""

    bank: Bank
    provider: Provider
    runs: list[tuple[uuid.UUID, uuid.UUID]]
    usd_per_day: Decimal
    random: Random

    def work(self, calls: int) -> int:
        return sum(self._call() for _ in range(calls))

    def _call(self) -> bool:
        run_id, job_id = self.random.choice(self.runs)
        budget = self.bank.budget(job_id, self.usd_per_day)
        most = Decimal(self.random.randint(1, 400)) / 10_000
        try:
            reservation = budget.reserve(most)
        except (BudgetExceededError, BudgetReservedError):
            return False
        self._answer(budget, run_id, reservation, most)
        return True

    def _answer(
        self, budget: JobBudget, run_id: uuid.UUID, reservation: uuid.UUID, most: Decimal
    ) -> None:
        cost = most * self.random.randint(0, 100) / 100
        self.provider.charge(run_id, cost)
        fate = self.random.random()
        if fate < 0.2:
            return  # killed between reserve and settle
        budget.settle(reservation, None if fate < 0.3 else cost)
        if fate > 0.9:
            budget.settle(reservation, cost)  # the answer to the first commit was lost


@pytest.mark.nightly
def test_hundreds_of_workers_stay_within_the_caps(bank: Bank) -> None:
    """Three runs and a day with 200 workers, kills, unknown costs, and recovery at any moment."""
    caps = (Decimal("0.5"), Decimal(2), Decimal(50))
    runs = [bank.job(cap) for cap in caps]
    usd_per_day, provider = Decimal(6), Provider()
    workers = [
        SimulatedWorker(
            bank=bank,
            provider=provider,
            runs=runs,
            usd_per_day=usd_per_day,
            random=Random(seed),  # noqa: S311 - the same in every run
        )
        for seed in range(200)
    ]

    with ThreadPoolExecutor(24) as threads:
        made = [threads.submit(worker.work, 8) for worker in workers]
        for turn in range(5):
            threads.submit(bank.give_up).result(timeout=60 * (turn + 1))
        calls = sum(future.result(timeout=120) for future in made)
    bank.give_up()

    accounts = [bank.account(budgets.scope_of_run(run_id)) for run_id, _ in runs]
    for (run_id, _), cap, (spent, reserved) in zip(runs, caps, accounts, strict=True):
        assert provider.charged.get(run_id, Decimal(0)) <= spent <= cap
        assert reserved == 0
    assert sum(provider.charged.values()) <= bank.day()[0] <= usd_per_day
    assert bank.day() == (sum(spent for spent, _ in accounts), Decimal(0))
    assert calls > 200  # most of the money allowed by the caps was spent
    assert bank.day()[0] > Decimal("0.9") * usd_per_day


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "settle", "unknown", "kill", "recover", "late", "raise"]),
        st.integers(0, 199),
        st.integers(1, 60),
    ),
    min_size=5,
    max_size=60,
)


@dataclass(slots=True, kw_only=True)
class Interleaving:
    """One order of the steps of 200 workers of a run, checked after each step."""

    bank: Bank
    run_id: uuid.UUID
    budget: JobBudget
    cap: Decimal = Decimal(1)
    charged: Decimal = Decimal(0)
    in_flight: dict[int, tuple[uuid.UUID, Decimal]] = field(default_factory=dict)
    lost: dict[int, tuple[uuid.UUID, Decimal]] = field(default_factory=dict)

    def take(self, step: str, worker: int, size: int) -> None:
        match step:
            case "reserve":
                self._reserve(worker, Decimal(size) / 100)
            case "settle" | "unknown" if worker in self.in_flight:
                self._settle(*self.in_flight.pop(worker), size, is_known=step == "settle")
            case "kill" if worker in self.in_flight:
                self.lost[worker] = self.in_flight.pop(worker)
                self.charged += self.lost[worker][1]  # the provider's answer was lost
            case "late" if worker in self.lost:
                reservation, most = self.lost.pop(worker)
                self.budget.settle(reservation, most)
            case "recover":
                self.bank.give_up()
            case "raise":
                self._raise_cap(Decimal(size) / 10)
            case _:
                pass

    def check(self) -> None:
        """Compare the account with what the provider has charged and may still charge."""
        spent, reserved = self.bank.account(budgets.scope_of_run(self.run_id))
        possible = self.charged + sum(most for _, most in self.in_flight.values())
        assert self.charged <= spent + reserved
        assert possible <= spent + reserved <= self.cap

    def _reserve(self, worker: int, most: Decimal) -> None:
        if worker in self.in_flight or worker in self.lost:
            return
        try:
            reservation = self.budget.reserve(most)
        except (BudgetExceededError, BudgetReservedError):
            spent, reserved = self.bank.account(budgets.scope_of_run(self.run_id))
            assert spent + reserved + most > self.cap  # the refusal was necessary
        else:
            self.in_flight[worker] = (reservation, most)

    def _settle(self, reservation: uuid.UUID, most: Decimal, size: int, *, is_known: bool) -> None:
        cost = most * size / 60
        self.charged += cost
        self.budget.settle(reservation, cost if is_known else None)

    def _raise_cap(self, cap: Decimal) -> None:
        spent, reserved = self.bank.account(budgets.scope_of_run(self.run_id))
        if cap <= max(self.cap, spent + reserved):
            return
        with self.bank.database.write() as session:
            spending.change_cap(session, self.run_id, cap)
        self.cap = cap


@hypothesis_settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_the_account_is_right_in_any_order(bank: Bank, steps: list[tuple[str, int, int]]) -> None:
    """The steps are reserving, settling, kills, recovery, late settlements and new caps."""
    run_id, job_id = bank.job(Decimal(1))
    interleaving = Interleaving(bank=bank, run_id=run_id, budget=bank.budget(job_id))

    for step, worker, size in steps:
        interleaving.take(step, worker % 200, size)
        interleaving.check()


def test_calls_of_many_threads_share_their_statements(bank: Bank) -> None:
    (first_run, first), (second_run, second) = bank.job(Decimal(1)), bank.job(Decimal(2))
    budgets_of_jobs = [bank.budget(job_id, Decimal(50)) for job_id in (first, second)]
    calls = [uuid.uuid4() for _ in range(32)]
    group = [
        budgets_of_jobs[number % 2].entry(call_id, Decimal("0.1"))
        for number, call_id in enumerate(calls)
    ]
    budgets_of_jobs[0].settle(budgets_of_jobs[0].reserve(Decimal("0.1")), Decimal(0))

    with bank.database.transaction() as store, recorded() as sent:
        refusals = store_entries(store, group)
    granted = [call for call, refusal in zip(calls, refusals, strict=True) if refusal is None]
    assert len(sent) == 4, "the calls, the accounts, and the calls without money"
    assert len(granted) == 26, "ten of the first run and all sixteen of the second"
    assert bank.account(f"run:{first_run}") == (Decimal(0), Decimal(1))
    assert bank.account(f"run:{second_run}") == (Decimal(0), Decimal("1.6"))
    assert bank.day() == (Decimal(0), Decimal("2.6"))

    with bank.database.transaction() as store, recorded() as sent:
        ends = [ended(call_id, Decimal("0.01")) for call_id in granted]
        store_entries(store, [CallEntry(ended=ends)])
    assert len(sent) == 2, "the calls and the accounts"
    assert bank.account(f"run:{first_run}") == (Decimal("0.1"), Decimal(0))
    assert bank.day() == (Decimal("0.26"), Decimal(0))


def test_a_call_that_begins_twice_is_reserved_once(bank: Bank) -> None:
    """The answer to a commit may be lost; the entry, or its withdrawal, is then stored again."""
    run_id, job_id = bank.job(Decimal(1))
    budget = bank.budget(job_id)
    call_id = uuid.uuid4()
    entry = budget.entry(call_id, Decimal("0.9"))

    assert [budget.enter(entry, SHORT) for _ in range(2)] == [None, None]

    assert bank.account(budgets.scope_of_run(run_id)) == (Decimal(0), Decimal("0.9"))
    for _ in range(2):
        budget.enter(CallEntry(withdrawn=[call_id]), SHORT)
    assert bank.account(budgets.scope_of_run(run_id)) == bank.day() == (Decimal(0), Decimal(0))
