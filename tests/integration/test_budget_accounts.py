"""Spending never exceeds a cap: what is reserved, settled and forgotten, over a real PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select, text

from chordwise.errors import BudgetExceededError, BudgetReservedError, UsageError
from chordwise.pipeline.models import budgets as spending
from chordwise.settings import Settings
from chordwise.storage import budgets
from tests.fakes.bank import Bank, a_bank


@pytest.fixture
def bank(settings: Settings) -> Iterator[Bank]:
    """Open the database with as many connections as there are threads."""
    with a_bank(settings) as lent:
        yield lent


def test_without_any_cap_nothing_is_reserved(bank: Bank) -> None:
    """Who sets no limit pays no transaction that locks anything."""
    _, job_id = bank.job()

    reservation = bank.budget(job_id).reserve(Decimal(1), 60)

    assert reservation is None


def test_what_was_not_spent_comes_back(bank: Bank) -> None:
    """A settled request counts with its true cost, in both accounts."""
    run_id, job_id = bank.job(Decimal(1))
    budget = bank.budget(job_id)

    reservation = budget.reserve(Decimal("0.9"), 60)
    assert reservation is not None
    meanwhile = bank.account(budgets.scope_of_run(run_id))
    budget.settle(reservation, Decimal("0.1"))
    budget.settle(reservation, Decimal("0.1"))

    assert meanwhile == (Decimal(0), Decimal("0.9"))
    assert bank.account(budgets.scope_of_run(run_id)) == (Decimal("0.1"), Decimal(0))
    assert bank.day() == (Decimal("0.1"), Decimal(0))


def test_an_unknown_cost_is_all_that_was_reserved(bank: Bank) -> None:
    """Nobody knows what an interrupted call did cost; the cap has to hold all the same."""
    run_id, job_id = bank.job(Decimal(1))
    budget = bank.budget(job_id)

    reservation = budget.reserve(Decimal("0.9"), 60)
    assert reservation is not None
    budget.settle(reservation, None)

    assert bank.account(budgets.scope_of_run(run_id)) == (Decimal("0.9"), Decimal(0))


def test_what_was_settled_long_ago_is_forgotten(bank: Bank) -> None:
    """The reservation goes, what it came to stays in the accounts, and open ones stay too."""
    _, job_id = bank.job(Decimal(1))
    budget = bank.budget(job_id)
    settled, still_open = budget.reserve(Decimal("0.1"), 60), budget.reserve(Decimal("0.2"), 60)
    assert settled is not None
    budget.settle(settled, Decimal("0.1"))

    with bank.database.write() as session:
        budgets.forget_settled(session, timedelta(0))

    with bank.database.read() as session:
        assert session.scalars(select(budgets.BudgetReservation.id)).all() == [still_open]
    assert bank.day() == (Decimal("0.1"), Decimal("0.2"))


def test_money_of_others_is_waited_for_and_spent_money_is_not(bank: Bank) -> None:
    """As long as calls in flight may give something back, the answer is not final."""
    _, job_id = bank.job(Decimal(1))
    budget = bank.budget(job_id)
    reservation = budget.reserve(Decimal("0.6"), 60)
    assert reservation is not None

    with pytest.raises(BudgetReservedError) as waiting:
        budget.reserve(Decimal("0.6"), 60)
    budget.settle(reservation, Decimal("0.6"))
    with pytest.raises(BudgetExceededError, match=r"\$1\.00 is used up: \$0\.60 are spent"):
        budget.reserve(Decimal("0.6"), 60)

    assert waiting.value.is_throttling


def test_the_day_limits_all_runs_together(bank: Bank) -> None:
    """Two runs without a budget of their own share that of the day; its end is in the hint."""
    first, second = (bank.budget(bank.job()[1], Decimal(1)) for _ in range(2))
    reservation = first.reserve(Decimal("0.7"), 60)
    assert reservation is not None
    first.settle(reservation, Decimal("0.7"))

    with pytest.raises(BudgetExceededError) as error:
        second.reserve(Decimal("0.4"), 60)

    assert error.value.hint.endswith("Or raise budget.usd_per_day.")
    assert "ends at midnight UTC" in error.value.hint


def test_a_new_day_begins_with_nothing(bank: Bank) -> None:
    """Yesterday's account is another one; what was reserved yesterday is settled there."""
    _, job_id = bank.job()
    budget = bank.budget(job_id, Decimal(1))
    reservation = budget.reserve(Decimal("0.9"), 60)
    assert reservation is not None
    with bank.database.write() as session:
        session.execute(text("UPDATE budgets SET scope = 'day:2001-01-01' WHERE run_id IS NULL"))
        session.execute(text("UPDATE budget_reservations SET day = '2001-01-01'"))

    again = budget.reserve(Decimal("0.9"), 60)
    budget.settle(reservation, Decimal("0.8"))

    assert again is not None
    assert bank.account("day:2001-01-01") == (Decimal("0.8"), Decimal(0))


def test_another_cap_of_the_day_holds_at_once(bank: Bank) -> None:
    """A worker that was started with a higher cap goes on with what is spent already."""
    _, job_id = bank.job()
    reservation = bank.budget(job_id, Decimal(1)).reserve(Decimal(1), 60)
    assert reservation is not None
    bank.budget(job_id, Decimal(1)).settle(reservation, None)

    more = bank.budget(job_id, Decimal(2)).reserve(Decimal(1), 60)

    assert more is not None
    assert bank.day() == (Decimal(1), Decimal(1))


def test_a_cap_counts_what_was_spent_without_one(bank: Bank) -> None:
    """The ledger knows what a run did cost before anybody thought of a budget."""
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
        bank.budget(job_id, Decimal(5)).reserve(Decimal("0.3"), 60)
    assert bank.budget(job_id, Decimal(5)).reserve(Decimal("0.2"), 60) is not None
    assert bank.day() == (Decimal("0.75"), Decimal("0.2"))


def test_a_killed_worker_has_spent_all_until_it_says_otherwise(bank: Bank) -> None:
    """A reservation that ran out counts in full; its owner's late word corrects that."""
    run_id, job_id = bank.job(Decimal(1))
    budget = bank.budget(job_id)
    reservation = budget.reserve(Decimal("0.9"), 60)
    assert reservation is not None

    before_it_ran_out = None
    with bank.database.write() as session:
        before_it_ran_out = budgets.settle_abandoned(session, 10)
    given_up = bank.give_up()
    abandoned = bank.account(budgets.scope_of_run(run_id))
    budget.settle(reservation, Decimal("0.1"))

    assert (before_it_ran_out, given_up) == (0, 1)
    assert abandoned == (Decimal("0.9"), Decimal(0))
    assert bank.account(budgets.scope_of_run(run_id)) == (Decimal("0.1"), Decimal(0))


def test_fractions_of_what_the_accounts_keep_are_rounded_up(bank: Bank) -> None:
    """A price below the smallest unit does not make calls free."""
    run_id, job_id = bank.job(Decimal(1))
    budget = bank.budget(job_id)

    reservation = budget.reserve(Decimal("0.000000001"), 60)
    assert reservation is not None
    budget.settle(reservation, Decimal("0.0000000005"))

    assert bank.account(budgets.scope_of_run(run_id)) == (Decimal("0.00000001"), Decimal(0))
