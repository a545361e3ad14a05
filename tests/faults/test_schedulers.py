"""P07 and P08: schedulers are killed and frozen; and generated schedules of faults."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fakes.processes import wait_until
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.experiment import RECOVERY_SECONDS, Experiment
from tests.faults.members import Member
from tests.faults.monkey import ON_ANY_SERVERS, Fault, Monkey
from tests.faults.schedules import schedules

TAKEOVER_SECONDS = 30.0
MANY = 32
_LEADER = """
SELECT coalesce(max(l.pid), 0) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.relation = 'leader_lock'::regclass AND l.granted
    AND a.application_name = 'chordwise leader' AND a.datname = current_database()"""

_SENT_TWICE = "SELECT count(*) FROM outbox WHERE sends > 1"


def leader(cluster: Cluster) -> int:
    """Return the database session of the leader; 0 if there is none."""
    return cluster.count(_LEADER)


def start_two_schedulers(cluster: Cluster) -> tuple[Member, Member]:
    first = cluster.start_scheduler()
    wait_until(lambda: leader(cluster) != 0, 30, "a scheduler leads")
    second = cluster.start_scheduler()
    wait_until(lambda: second.has_started, 30, "the second one starts")
    return first, second


def wait_for_another_leader(cluster: Cluster, before: int) -> None:
    """Wait until another session than `before` is the leader."""
    wait_until(lambda: leader(cluster) not in {0, before}, TAKEOVER_SECONDS, "another one leads")


@pytest.mark.thorough
@pytest.mark.parametrize("point", ["dispatch.recorded", "dispatch.sent"])
def test_a_scheduler_killed_while_it_sends_its_messages(
    cluster: Cluster, experiment: Experiment, point: str
) -> None:
    """P07: its messages are sent, again if necessary, and no call is repeated."""
    experiment.begin(f"P07 {point}", "kill -9 of a scheduler before or after it sends its messages")
    cluster.start_worker()
    cluster.submit(*(cluster.documents.write(chunks=4) for _ in range(6)))
    assert cluster.start_scheduler(f"{point}:kill").wait_for_end() == -9
    experiment.fault_is_over()
    cluster.start_scheduler()

    experiment.finish()


@pytest.mark.thorough
def test_a_worker_killed_during_a_large_fan_out(cluster: Cluster, experiment: Experiment) -> None:
    """P07: it is killed after half of its messages; all chunks are called once."""
    experiment.begin("P07 mid-publish", "kill -9 with 25 of 50 messages sent", chunks=200)
    cluster.start_scheduler()
    worker = cluster.start_worker("fan_out.mid_publish:kill:25")
    cluster.submit(cluster.documents.write(chunks=200))

    assert worker.wait_for_end() == -9
    experiment.fault_is_over()
    cluster.start_worker()

    experiment.finish()
    assert cluster.count("SELECT count(*) FROM chunks") >= 200


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_another_scheduler_replaces_a_lost_leader(
    cluster: Cluster, experiment: Experiment, how: str
) -> None:
    """P08: the other scheduler becomes the leader within 30 s, and recovers pending work."""
    experiment.begin(f"P08 {how}", f"the leader of two schedulers is {how}, and a worker killed")
    first, _ = start_two_schedulers(cluster)
    worker = cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.25)
    session = leader(cluster)

    first.kill() if how == "killed" else first.freeze()
    worker.kill()
    experiment.fault_is_over()
    cluster.start_worker()

    wait_for_another_leader(cluster, session)
    cluster.wait_until_finished()
    first.thaw()
    experiment.finish(
        bound_seconds=TAKEOVER_SECONDS + RECOVERY_SECONDS + experiment.undisturbed_seconds
    )


@pytest.mark.thorough
def test_messages_of_a_frozen_scheduler_are_sent(cluster: Cluster, experiment: Experiment) -> None:
    """P08: another scheduler sends the messages that the frozen one has recorded as sent."""
    experiment.begin("P08 dispatch.recorded", "a scheduler frozen before it sends its messages")
    frozen = cluster.start_scheduler("dispatch.recorded:freeze")
    cluster.start_worker()
    cluster.submit(*(cluster.documents.write(chunks=4) for _ in range(6)))
    frozen.wait_until_frozen()
    cluster.broker.flush()  # so that messages it has sent do not hide the fault
    experiment.fault_is_over()
    cluster.start_scheduler()

    cluster.wait_until_finished(90)
    frozen.thaw()
    experiment.finish(
        bound_seconds=TAKEOVER_SECONDS + RECOVERY_SECONDS + experiment.undisturbed_seconds
    )


@pytest.mark.thorough
def test_two_schedulers_repeat_no_calls(cluster: Cluster, experiment: Experiment) -> None:
    """P08: both send messages, one recovers, and no call is repeated."""
    experiment.begin("P08 both", "two schedulers, FLUSHALL", chunks=48)
    start_two_schedulers(cluster)
    cluster.start_worker()
    for _ in range(4):
        cluster.submit(*(cluster.documents.write(chunks=4) for _ in range(3)))
    cluster.broker.flush()
    experiment.fault_is_over()

    experiment.finish(Allowance(extra_calls=0))


@pytest.mark.thorough
def test_a_slow_broker_receives_each_message_once(cluster: Cluster, experiment: Experiment) -> None:
    """P07: sent messages are recorded periodically, so they are not sent repeatedly."""
    experiment.begin("P07 slow broker", "0.2 s delay for each of many messages", chunks=72)
    cluster.start_worker()
    cluster.submit(*(cluster.documents.write(chunks=2) for _ in range(MANY)))
    cluster.to_broker.delay(0.05)
    cluster.start_scheduler()

    cluster.wait_for("SELECT count(*) = 0 FROM outbox WHERE sends = 0", 60)
    repeated = cluster.count(_SENT_TWICE)
    cluster.to_broker.pass_on()
    experiment.fault_is_over()

    experiment.finish()
    assert repeated == 0


FEW = 2
MANY_SCHEDULES = 25
CHUNKS = 24

Begin: TypeAlias = Callable[[], AbstractContextManager[Experiment]]


def run(experiment: Experiment, schedule: list[Fault], number: int, turn: int) -> None:
    """Apply a schedule of faults during a document, and check the invariants."""
    cluster = experiment.cluster
    experiment.begin(f"H{turn:02}", ", ".join(map(str, schedule)), chunks=CHUNKS, seed=number)
    monkey = Monkey(cluster=cluster)
    cluster.start_both()
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
    """Run this many schedules of one seed, each on a separate cluster."""
    turns = itertools.count(1)

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate,),  # shrinking would repeat runs of 15 s
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
@pytest.mark.timeout(1_800)
def test_many_schedules_of_a_new_seed(begin: Begin, number: int) -> None:
    play(begin, number, MANY_SCHEDULES)
