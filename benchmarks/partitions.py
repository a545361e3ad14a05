"""`python -m benchmarks.partitions` compares one ledger of calls with one partitioned by month.

Both have the same rows and indexes, except that the unique index of claimed questions cannot exist
in a partitioned table: it would have to contain the month.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from pydantic import SecretStr

from chordwise.embedded.postgres import EmbeddedPostgres
from chordwise.storage import migration
from chordwise.storage.database import open_engine

_MONTHS = 24
_FILL = """
INSERT INTO {table} (
    id, run, job_id, chunk_id, stage, provider, model, prompt_version, language_model, attempt,
    started_at, finished_at, latency_ms, input_tokens, output_tokens, cost_usd, cost_basis,
    finish_reason, valid, quality, cache_hit
)
SELECT uuidv7(), 'run ' || n / 100000, uuidv7(), uuidv7(), 'extract',
    'peer', 'peer-1', 'extraction@1', true, 1, t, t + interval '1 s', 900, 900, 120, 0.0012,
    'prices', 'stop', true, 1, false
FROM generate_series({first}, {last} - 1) AS n
CROSS JOIN LATERAL (
    SELECT timestamptz '2026-01-01' + (n::double precision / {rows} * {months}) * interval '1 month'
) AS at(t)
"""
_PARTITIONED = """
CREATE TABLE by_month (LIKE model_calls INCLUDING DEFAULTS) PARTITION BY RANGE (started_at);
CREATE INDEX ON by_month (chunk_id);
CREATE INDEX ON by_month (job_id);
CREATE UNIQUE INDEX ON by_month (id, started_at);
"""
_MONTH = """
CREATE TABLE by_month_{number} PARTITION OF by_month FOR VALUES
FROM (timestamptz '2026-01-01' + interval '{number} month')
TO (timestamptz '2026-01-01' + interval '{number} month' + interval '1 month')
WITH (fillfactor = 50)
"""
# The condition on the day uses the BRIN index of the ledger, the other one excludes partitions.
_WEEK = """
SELECT provider, model, count(*), sum(cost_usd) FROM {table}
WHERE (started_at AT TIME ZONE 'UTC')::date >= '2027-12-14'
    AND started_at >= timestamptz '2027-12-13'
GROUP BY 1, 2
"""
_SIZE = """
SELECT coalesce(sum(pg_total_relation_size(relid)), pg_total_relation_size('{table}'))
FROM pg_partition_tree('{table}')
"""
_ANY_JOB = "SELECT job_id FROM {table} OFFSET 1000 LIMIT 1"
_JOB = "SELECT * FROM {table} WHERE job_id = '{job_id}'"
_DELETE = "DELETE FROM {table} WHERE started_at < timestamptz '2026-02-01'"


def main() -> int:
    """Print the seconds of each operation on both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    rows: int = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="cw-") as folder:
        (Path(folder) / "run").mkdir(mode=0o700)
        postgres = EmbeddedPostgres(Path(folder) / "postgres", Path(folder) / "run")
        postgres.start()
        try:
            engine = open_engine(SecretStr(postgres.url()))
            migration.migrate(engine)
            engine.dispose()
            with psycopg.connect(postgres.url(), autocommit=True) as connection:
                _compare(connection, rows)
        finally:
            postgres.stop()
    return 0


def _compare(connection: psycopg.Connection, rows: int) -> None:
    connection.execute("SET session_replication_role = replica")  # jobs and chunks do not exist
    connection.execute(_PARTITIONED)
    for number in range(_MONTHS):
        connection.execute(_MONTH.format(number=number).encode())
    for table in ("model_calls", "by_month"):
        _fill(connection, table, 0, rows, rows)
        connection.execute(f"VACUUM ANALYZE {table}".encode())
        _tell(table, "rows in gigabytes", _gigabytes(connection, table))
        more = lambda table=table: _fill(connection, table, rows - 10_000, rows, rows)  # noqa: E731
        _tell(table, "10,000 further rows", _seconds(more))
        row = connection.execute(_ANY_JOB.format(table=table).encode())
        (job_id,) = row.fetchone() or ("",)
        for what, statement in (
            ("calls of a job", _JOB.format(table=table, job_id=job_id)),
            ("costs of a week", _WEEK.format(table=table)),
        ):
            seconds = [_seconds(lambda s=statement: connection.execute(s.encode())) for _ in "123"]  # type: ignore[misc]  # bound
            _tell(table, what, min(seconds))
    delete = _DELETE.format(table="model_calls").encode()
    _tell("model_calls", "deleting the first month", _seconds(lambda: connection.execute(delete)))
    drop = b"DROP TABLE by_month_0"
    _tell("by_month", "deleting the first month", _seconds(lambda: connection.execute(drop)))


def _fill(connection: psycopg.Connection, table: str, first: int, last: int, rows: int) -> None:
    values = {"first": first, "last": last, "rows": rows, "months": _MONTHS}
    connection.execute(_FILL.format(table=table, **values).encode())


def _gigabytes(connection: psycopg.Connection, table: str) -> float:
    (size,) = connection.execute(_SIZE.format(table=table).encode()).fetchone() or (0,)
    return float(size) / 1e9


def _seconds(do: Callable[[], object]) -> float:
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun


def _tell(table: str, what: str, value: float) -> None:
    sys.stdout.write(f"{table:12} {what:28} {value:10.3f}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
