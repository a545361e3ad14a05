"""Collects the figures that all processes share, from PostgreSQL and the broker, for metrics."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

import structlog
from psycopg import Connection

from chordwise.domain.states import IntakeOutcome, JobStatus
from chordwise.errors import ChordwiseError
from chordwise.llm.limits import shared_limits
from chordwise.pipeline.recovery.recover import PLANNED, RULES
from chordwise.pipeline.runtime import broker
from chordwise.relations.relation import Relation
from chordwise.relations.review import QUEUE as CELLS
from chordwise.settings import Settings
from chordwise.settings.receivers import RECEIVERS
from chordwise.storage.database import Database, driver
from chordwise.telemetry.metrics import label_of

if TYPE_CHECKING:
    from prometheus_client import Metric

FIGURES = Relation(
    query="""WITH part (kind, length, since) AS (
    SELECT
        CASE WHEN sends = 0 AND due_at > statement_timestamp() THEN 'postponed' ELSE task END,
        count(*),
        min(CASE WHEN sends = 0 THEN greatest(created_at, due_at) ELSE created_at END)
    FROM outbox GROUP BY 1
    UNION ALL
    SELECT 'read', count(*), min(r.created_at)
    FROM listed_files AS f INNER JOIN runs AS r ON r.id = f.run_id
    WHERE f.status <> 'reading'
    UNION ALL
    SELECT 'inbox', count(*), min(created_at) FROM inbox_files WHERE status = 'claimed'
    UNION ALL
    SELECT 'batch', count(*), min(created_at) FROM batch_requests WHERE status = 'pending'
    UNION ALL
    SELECT 'delivery', count(*), min(created_at) FROM deliveries WHERE status = 'pending'
    UNION ALL
    SELECT 'schedule', count(*), min(due_at) FROM schedule_runs
    WHERE status = 'due' AND due_at <= statement_timestamp()
), unfinished AS (SELECT id FROM runs WHERE status IN ('open', 'paused'))

SELECT 'queue_length' AS name, ARRAY[replace(kind, 'chordwise.', '')] AS labels,
    length::float8 AS value
FROM part
UNION ALL
SELECT 'queue_oldest_seconds', ARRAY[replace(kind, 'chordwise.', '')],
    coalesce(greatest(0, extract(epoch FROM statement_timestamp() - since)), 0)::float8
FROM part
UNION ALL
SELECT 'jobs', ARRAY[status], count(*) FROM jobs
WHERE run_id IN (SELECT id FROM unfinished) GROUP BY status
UNION ALL
SELECT 'intakes', ARRAY[outcome], count(*) FROM intakes
WHERE run_id IN (SELECT id FROM unfinished) GROUP BY outcome
UNION ALL
SELECT 'incidents', ARRAY[kind, reason], count FROM incidents"""
)
"""Rows with the `name` of a figure, its `labels` and its `value`."""
log = structlog.get_logger(__name__)

Values: TypeAlias = Mapping[tuple[str, ...], float]

_FRESH_SECONDS, _MAX_PAUSE_SECONDS = 5.0, 300.0
# Of the time, for each read: a slow one is repeated less often.
_SHARE = 0.001
_MOST_CELLS = 10_000
# Parallel workers would cost more than the time of the statement.
_BOUNDS = "SET LOCAL statement_timeout = '2s'; SET LOCAL max_parallel_workers_per_gather = 0"
_TASKS = ("fan_out", "analyze_slice", "synthesize", "postponed")
_KINDS = [(kind,) for kind in (*_TASKS, "read", "inbox", "batch", "delivery", "schedule")]
# The meaning of each figure, its labels, and those whose value is zero unless they occur, so that
# the first incident is an increase.
_FIGURES: Mapping[str, tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]] = {
    "queue_length": ("Pieces of work that wait.", ("kind",), _KINDS),
    "queue_oldest_seconds": ("Age of the oldest piece of work that waits.", ("kind",), _KINDS),
    "jobs": ("Jobs of open runs.", ("status",), [(status.value,) for status in JobStatus]),
    "intakes": ("Intakes of open runs.", ("outcome",), [(end.value,) for end in IntakeOutcome]),
    "incidents": (
        "Problems recovered from.",
        ("kind", "reason"),
        [
            *(("rescue", rule) for rule, _ in RULES if rule not in PLANNED),
            *(("rescue", "no_message"), ("lease_lost", "heartbeat"), ("lease_lost", "answer")),
            *(("delivery_failed", receiver) for receiver in RECEIVERS),
        ],
    ),
    "cells_to_check": (f"Cells to check, up to {_MOST_CELLS}.", (), ()),
    "permits": ("Concurrent calls.", ("provider", "model", "state"), ()),
    "pauses": ("Endpoints that are paused.", ("model", "code"), ()),
}


@dataclass(slots=True)
class Kept:
    """Figures that are read again after some seconds, or later if the read is slow."""

    read: Callable[[], Sequence[Metric]]
    metrics: Sequence[Metric] = ()
    due_at: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def current(self) -> Sequence[Metric]:
        """Return the figures; none if they cannot be read."""
        with self.lock:
            started = time.monotonic()
            if started >= self.due_at:
                try:
                    self.metrics = self.read()
                except ChordwiseError as error:
                    self.metrics = ()
                    log.warning("metrics.not_read", reason=error.what)
                pause = max(_FRESH_SECONDS, (time.monotonic() - started) / _SHARE)
                self.due_at = time.monotonic() + min(pause, _MAX_PAUSE_SECONDS)
        return self.metrics


class SharedFigures:
    """A collector of prometheus_client, safe to share between threads.

    Several scrapers cost one read. Figures that cannot be read are left out.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        reads = [partial(_read, database, read) for read in (_figures, _cells)]
        self._kept = [Kept(read) for read in (*reads, partial(_permits, settings))]

    def collect(self) -> Iterator[Metric]:
        """Yield the figures."""
        return chain.from_iterable(kept.current() for kept in self._kept)


def _read(
    database: Database, read: Callable[[Connection], Mapping[str, Values]]
) -> Sequence[Metric]:
    with database.read() as session:
        connection = driver(session)
        connection.execute(_BOUNDS)
        return _metrics(read(connection))


def _figures(connection: Connection) -> Mapping[str, Values]:
    values = {name: dict.fromkeys(zero, 0.0) for name, (_, _, zero) in _FIGURES.items() if zero}
    for row in FIGURES.read(connection):
        values[row["name"]][tuple(row["labels"])] = row["value"]
    return values


def _cells(connection: Connection) -> Mapping[str, Values]:
    return {"cells_to_check": {(): CELLS.count(connection, limit=_MOST_CELLS)}}


def _permits(settings: Settings) -> Sequence[Metric]:
    if settings.broker_url is None:
        return ()
    names = {settings.model, *(profile.model for profile in settings.profiles.values())} - {""}
    selected = chain.from_iterable(map(settings.selected_names, names))
    endpoints = {}
    for name in (*settings.models, *selected, *settings.fallback):
        model = settings.model_named(name)
        endpoint = shared_limits.ModelEndpoint.of(model, settings.api_key_for(model))
        endpoints[endpoint] = model.provider, label_of(model.provider, model.model)
    permits: dict[tuple[str, ...], float] = defaultdict(float)
    with broker.translating_errors(), shared_limits.open_client(settings.broker_url) as client:
        for endpoint, labels in endpoints.items():
            for state, number in shared_limits.read_permits(client, endpoint).items():
                permits[*labels, state] += number
        pauses = shared_limits.read_pauses(client)
    paused = Counter((pause.model, pause.denial.code) for pause in pauses)
    return _metrics({"permits": permits, "pauses": {key: paused[key] for key in paused}})


def _metrics(figures: Mapping[str, Values]) -> Sequence[Metric]:
    from prometheus_client import core  # noqa: PLC0415 - see telemetry.metrics

    families: list[Metric] = []
    for name, values in figures.items():
        kind = core.CounterMetricFamily if name == "incidents" else core.GaugeMetricFamily
        meaning, labels, _ = _FIGURES[name]
        family = kind(f"chordwise_{name}", meaning, labels=labels)
        for key, value in values.items():
            family.add_metric(key, value)
        families.append(family)
    return families
