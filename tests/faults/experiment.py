"""An experiment: waiting, timing, checking the invariants, and recording the row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.fakes.configuration import CONCURRENCY, INTERVAL_SECONDS, LEASE_SECONDS
from tests.faults.allowance import NOTHING_SPECIAL, Allowance
from tests.faults.cluster import Cluster
from tests.faults.members import Member
from tests.faults.oracle import INVARIANTS, Invariant, find_violations
from tests.faults.rows import Row

RECOVERY_SECONDS = LEASE_SECONDS + 2 * INTERVAL_SECONDS
CHUNKS = 24
# Fan-out divides a document into slices of as many chunks as a worker has slots.
MESSAGES = CHUNKS // CONCURRENCY
# The load of the machine by other processes is no violation.
TOLERANCE = 2.0


@dataclass(slots=True, kw_only=True)
class Experiment:
    """`report` receives the row; `work_seconds` returns the time of the work without a fault."""

    cluster: Cluster
    report: Callable[[Row], None]
    work_seconds: Callable[[int], float]
    id: str = ""
    injected: str = ""
    seed: int | None = None
    _fault_at: float = field(default_factory=time.monotonic)
    _work_seconds: float = 0.0

    def begin(
        self, id_: str, injected: str, *, chunks: int = CHUNKS, seed: int | None = None
    ) -> None:
        """Name the experiment, before any process is started.

        `id_` is the id in results.md with its variant; `chunks` is the number of chunks,
        whose time without a fault is measured now unless it is known.
        """
        assert not self.cluster.members.all, "the experiment begins before its processes"
        self.id, self.injected, self.seed = id_, injected, seed
        self._work_seconds = self.work_seconds(chunks)
        self.fault_is_over()

    def begin_with_document(self, id_: str, injected: str) -> Member:
        """Begin, and start a scheduler, a worker and a document; return the worker."""
        self.begin(id_, injected)
        worker = self.cluster.start_both()
        self.cluster.submit(self.cluster.documents.write(chunks=CHUNKS))
        return worker

    @property
    def undisturbed_seconds(self) -> float:
        """Return the time of the work without a fault."""
        return self._work_seconds

    def fault_is_over(self) -> None:
        """Start the measurement of the time until everything is finished."""
        self._fault_at = time.monotonic()

    def finish(
        self,
        allowance: Allowance = NOTHING_SPECIAL,
        *,
        notes: str = "",
        timeout_seconds: float = 90,
        bound_seconds: float | None = None,
        tolerance: float = TOLERANCE,
        invariants: Iterable[tuple[str, Invariant]] = INVARIANTS,
    ) -> None:
        """Wait until every run is finished, check the invariants, and record a row.

        The bound is lease + 2 intervals + the work, unless the experiment sets another one. It may
        be exceeded by the factor `tolerance`, which the row then states.

        Raises:
            AssertionError: A run does not finish, an invariant is violated, or it takes too long.
        """
        violations = self._wait(timeout_seconds)
        seconds = time.monotonic() - self._fault_at
        extra_calls = self.cluster.provider.extra_calls
        bound = bound_seconds or RECOVERY_SECONDS + self._work_seconds
        violations = violations or find_violations(self.cluster, allowance, invariants)
        if not violations and seconds > bound * tolerance:
            violations = [f"it took {seconds:.1f} s, and {bound:.1f} s are promised"]
        self.report(
            Row(
                id=self.id,
                injected=self.injected,
                verdict="; ".join(violations)[:300] or "holds",
                seconds=round(seconds, 1),
                bound_seconds=round(bound, 1),
                extra_calls=extra_calls,
                notes=notes or self._redelivered(),
                seed=self.seed,
                date=datetime.now(UTC).date().isoformat(),  # noqa: TID251 - the date of the row
            )
        )
        assert violations == [], "\n".join((*violations, self.cluster.story()))

    def _wait(self, seconds: float) -> list[str]:
        try:
            self.cluster.wait_until_finished(seconds)
        except AssertionError as error:
            return [f"I1: not finished: {error}"]
        return []

    def _redelivered(self) -> str:
        count = self.cluster.redelivered
        return f"messages redelivered: {count}" if count else ""
