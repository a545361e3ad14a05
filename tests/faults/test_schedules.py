"""Generated schedules of faults: whatever happens in whatever order, the oracle is satisfied."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.faults.allowance import Allowance
from tests.faults.experiment import RECOVERY_SECONDS, Experiment
from tests.faults.monkey import ON_ANY_SERVERS, Fault, Monkey
from tests.faults.schedules import schedules

FEW = 2
MANY = 25
CHUNKS = 24

Begin: TypeAlias = Callable[[], AbstractContextManager[Experiment]]


def run(experiment: Experiment, schedule: list[Fault], number: int, turn: int) -> None:
    """Play a schedule while a document is at work, and judge."""
    cluster = experiment.cluster
    experiment.begin(f"H{turn:02}", ", ".join(map(str, schedule)), chunks=CHUNKS, seed=number)
    monkey = Monkey(cluster=cluster)
    cluster.start_scheduler()
    cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=CHUNKS))

    experiment.fault_is_over()
    for fault in schedule:
        cluster.wait_for_share(fault.share)
        monkey.strike(fault)

    recoveries = RECOVERY_SECONDS * len(schedule) + experiment.undisturbed_seconds
    experiment.finish(
        Allowance(extra_calls=monkey.extra_calls), bound_seconds=recoveries + monkey.outage_seconds
    )


def play(begin: Begin, number: int, examples: int) -> None:
    """Play so many schedules of one seed, each in a world of its own."""
    turns = itertools.count(1)

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate,),  # shrinking would repeat what takes a quarter of a minute
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(schedules(ON_ANY_SERVERS))
    def one(schedule: list[Fault]) -> None:
        with begin() as experiment:
            run(experiment, schedule, number, next(turns))

    one()


@pytest.fixture
def number(request: pytest.FixtureRequest) -> int:
    """Return the seed: `--fault-seed`, or a new one."""
    given_one: int | None = request.config.getoption("--fault-seed", None)
    return secrets.randbelow(1_000_000) if given_one is None else given_one


@pytest.mark.thorough
@pytest.mark.timeout(240)
def test_a_few_schedules_of_a_new_seed(begin: Begin, number: int) -> None:
    """Two generated schedules hold; the row says which seed repeats them."""
    play(begin, number, FEW)


@pytest.mark.thorough
@pytest.mark.timeout(1_800)
def test_many_schedules_of_a_new_seed(begin: Begin, number: int) -> None:
    play(begin, number, MANY)
