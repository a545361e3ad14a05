"""Measures how long documents take without a fault on this machine, as the base of bounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.faults.cluster import Cluster

_STEP = 12

ClusterFactory: TypeAlias = Callable[[], AbstractContextManager[Cluster]]


@dataclass(slots=True, kw_only=True)
class UndisturbedWork:
    """Measures each size once, on a cluster that `open_another` opens.

    That cluster shares the servers of the session, so no other one may be running.
    """

    open_another: ClusterFactory
    _measured: dict[int, float] = field(default_factory=dict)

    def seconds(self, chunks: int) -> float:
        """Return the time for this many chunks (rounded up to a dozen), with a worker's start."""
        size = max(1, -(-chunks // _STEP)) * _STEP
        if size not in self._measured:
            self._measured[size] = self._measure(size)
        return self._measured[size]

    def _measure(self, chunks: int) -> float:
        with self.open_another() as cluster:
            cluster.start_scheduler()
            cluster.submit(cluster.documents.write(chunks=chunks))
            begun = time.monotonic()
            cluster.start_worker()
            cluster.wait_until_finished(120)
            return time.monotonic() - begun
