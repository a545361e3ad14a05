"""The monkey: injects faults into a cluster one by one, and knows the cost of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tests.fakes.configuration import LEASE_SECONDS
from tests.faults.cluster import Cluster
from tests.faults.members import Member
from tests.faults.provider import HANG_UP, OVERLOADED

# Occurs only in the transactions that store the answer of a chunk or of a synthesis.
STORED_ANSWER = b'"main_topic"'


class Kind(StrEnum):
    """The kinds of faults."""

    KILL_WORKER = "kill -9 worker"
    TERMINATE_WORKER = "SIGTERM worker"
    FREEZE_WORKER = "SIGSTOP worker past its lease"
    KILL_SCHEDULER = "kill -9 scheduler"
    FLUSH_BROKER = "FLUSHALL"
    CUT_BROKER = "broker connections reset"
    REFUSE_BROKER = "broker refuses"
    CUT_DATABASE = "database connections reset"
    REFUSE_DATABASE = "database refuses"
    DROP_COMMIT = "COMMIT response lost"
    HANG_UP = "provider disconnects"
    OVERLOAD = "provider overloaded"
    KILL_DATABASE = "kill -9 database"
    KILL_BROKER = "kill -9 broker, restarted empty"


ON_OWN_SERVERS = (Kind.KILL_DATABASE, Kind.KILL_BROKER)
ON_ANY_SERVERS = tuple(kind for kind in Kind if kind not in ON_OWN_SERVERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault that occurs once this share of the chunks (0 to 1) is done, and lasts `seconds`."""

    kind: Kind
    share: float = 0.0
    seconds: float = 1.0

    def __str__(self) -> str:
        return f"{self.kind} at {self.share:.0%}"


@dataclass(slots=True, kw_only=True)
class Monkey:
    """`extra_calls` and `outage_seconds` are the possible costs of its faults so far."""

    cluster: Cluster
    extra_calls: int = 0
    outage_seconds: float = 0.0
    deeds: list[str] = field(default_factory=list)

    def strike(self, fault: Fault) -> None:
        """Inject the fault, and restart what a supervisor would restart."""
        self.deeds.append(str(fault.kind))
        begun = time.monotonic()
        self._deeds[fault.kind](self, fault.seconds)
        self.outage_seconds += time.monotonic() - begun

    def _kill_worker(self, _: float) -> None:
        self._one("worker").kill()
        self.cluster.start_worker()

    def _terminate_worker(self, _: float) -> None:
        self._one("worker").terminate(30)
        self.cluster.start_worker()

    def _freeze_worker(self, _: float) -> None:
        worker = self._one("worker")
        worker.freeze()
        time.sleep(LEASE_SECONDS + 1)  # noqa: TID251 - longer than the lease
        worker.thaw()

    def _kill_scheduler(self, _: float) -> None:
        self._one("scheduler").kill()
        self.cluster.start_scheduler()

    def _flush_broker(self, _: float) -> None:
        self.cluster.broker.flush()

    def _cut_broker(self, _: float) -> None:
        self.cluster.to_broker.cut()

    def _refuse_broker(self, seconds: float) -> None:
        self.cluster.to_broker.refuse()
        time.sleep(seconds)  # noqa: TID251 - the length of the outage
        self.cluster.to_broker.pass_on()

    def _cut_database(self, _: float) -> None:
        self.cluster.to_database.cut()

    def _refuse_database(self, seconds: float) -> None:
        self.cluster.to_database.refuse()
        time.sleep(seconds)  # noqa: TID251 - the length of the outage
        self.cluster.to_database.pass_on()

    def _drop_commit(self, _: float) -> None:
        self.cluster.to_database.drop_answer_after(b"COMMIT\0", holding=STORED_ANSWER)

    def _hang_up(self, _: float) -> None:
        self.cluster.provider.treat(HANG_UP, times=2)
        self.extra_calls += 2

    def _overload(self, _: float) -> None:
        self.cluster.provider.treat(OVERLOADED, times=3)
        self.extra_calls += 3

    def _kill_database(self, _: float) -> None:
        self.cluster.database.kill()
        self.cluster.database.start()

    def _kill_broker(self, _: float) -> None:
        self.cluster.broker.kill()
        self.cluster.broker.start(empty=True)

    def _one(self, role: str) -> Member:
        """Return the oldest living member of a role; start one if there is none."""
        alive = self.cluster.members.alive(role)
        return alive[0] if alive else self.cluster.members.start(role, "")

    _deeds: Mapping[Kind, Callable[[Monkey, float], None]] = field(
        default_factory=lambda: {kind: getattr(Monkey, f"_{kind.name.lower()}") for kind in Kind},
        repr=False,
    )
