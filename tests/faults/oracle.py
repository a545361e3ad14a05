"""The oracle: checks the invariants over the whole history after every experiment.

I1 end states and accounts · I2 one result each · I3 complete documents · I4 ledger = journal · I5
no secret anywhere · I6 documents unchanged · I7 quiet, and ready for more · I8 failures explained ·
I9 memory, files, processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from tests.faults import accounts, calls, deliveries, leaks, leftovers, quiescence
from tests.faults.allowance import NOTHING_SPECIAL, Allowance
from tests.faults.cluster import Cluster

Invariant: TypeAlias = Callable[[Cluster, Allowance], Iterator[str]]
"""Yields a sentence for each violation."""

# Quiet first, so that the others check a final state; new work last.
INVARIANTS: tuple[tuple[str, Invariant], ...] = (
    ("I7", quiescence.nothing_waits),
    ("I7", quiescence.redelivery_is_free),
    ("I1", accounts.end_states),
    ("I1", deliveries.end_states),
    ("I2", accounts.one_result_each),
    ("I3", accounts.whole_documents),
    ("I4", calls.ledger_is_journal),
    ("I4", calls.unfinished_rows),
    ("I4", calls.extra_calls),
    ("I6", leftovers.untouched_documents),
    ("I6", deliveries.each_in_one_place),
    ("I8", accounts.explained_failures),
    ("I8", deliveries.explained),
    ("I7", quiescence.canary_goes_through),
    ("I5", leaks.planted_secrets),
    ("I5", leaks.text_of_documents),
    ("I8", leftovers.tracebacks),
    ("I9", leftovers.memory),
    ("I9", leftovers.temporary_files),
    ("I9", leftovers.stray_processes),
)


def find_violations(
    cluster: Cluster,
    allowance: Allowance = NOTHING_SPECIAL,
    invariants: Iterable[tuple[str, Invariant]] = INVARIANTS,
) -> list[str]:
    """Return every violation as a sentence that begins with its invariant.

    The experiment must have left a worker and a scheduler running.
    """
    return [
        f"{name}: {sentence}"
        for name, invariant in invariants
        for sentence in invariant(cluster, allowance)
    ]
