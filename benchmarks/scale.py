"""`python -m benchmarks.scale` measures one very large run, and prints its bounds."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
import redis
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, event

from benchmarks.large_run import JOBS, LargeRun
from benchmarks.machine import cpu_seconds, peak_megabytes
from benchmarks.report import Bound
from benchmarks.rows import Bench, parser, tell
from benchmarks.stack import MeasurementError
from chordwise.cli import application
from chordwise.embedded.postgres import EmbeddedPostgres
from chordwise.embedded.valkey import EmbeddedValkey
from chordwise.pipeline.jobs import dispatch, run_control
from chordwise.pipeline.recovery.recover import promise_missing, recover
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.startup import open_context
from chordwise.settings import load
from chordwise.storage import migration, runs
from chordwise.storage.database import open_engine
from chordwise.telemetry import logging

_COOKBOOK = Path(__file__).resolve().parent.parent / "docs" / "sql-cookbook.md"
_QUESTION = re.compile(r"^## (\d+)\. [^\n]*\n+```sql\n(.*?)```", re.MULTILINE | re.DOTALL)
_MEGABYTES = 256
_DISPATCH_SECONDS = 60.0
_TIMES = 3
_SETTLED = 200
_VIEWS = """
SELECT relname FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
    AND has_table_privilege('chordwise_reader', oid, 'SELECT')
ORDER BY relname
"""


@dataclass(slots=True)
class Transactions:
    """The durations of the transactions of this process, in seconds."""

    seconds: list[float] = field(default_factory=list)
    _begun: dict[int, float] = field(default_factory=dict)

    @property
    def longest(self) -> float:
        """Return the longest duration."""
        return max(self.seconds, default=0.0)

    def watch(self, engine: Engine) -> None:
        """Time the transactions of an engine from now on."""
        event.listen(engine, "begin", self._begin)
        event.listen(engine, "commit", self._end)
        event.listen(engine, "rollback", self._end)

    def _begin(self, connection: Connection) -> None:
        self._begun[id(connection)] = time.monotonic()

    def _end(self, connection: Connection) -> None:
        begun = self._begun.pop(id(connection), None)
        if begun is not None:
            self.seconds.append(time.monotonic() - begun)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The shared state of the phases: separate servers, a scheduler's context, and the run."""

    bench: Bench
    context: Context
    transactions: Transactions
    connection: psycopg.Connection
    large: LargeRun
    broker: redis.Redis
    server: psutil.Process

    def server_cpu(self) -> float:
        """Return the CPU seconds of PostgreSQL so far, including ended processes."""
        return cpu_seconds([self.server, *self.server.children()])

    @property
    def run_id(self) -> uuid.UUID:
        """Return the id of the large run."""
        row = self.connection.execute("SELECT id FROM runs WHERE name = 'large'").fetchone()
        if row is None:
            raise MeasurementError("There is no run.")
        return uuid.UUID(str(row[0]))

    def record(self, row: str, what: str, value: float, note: str = "") -> None:
        """Record a value in seconds with the bound of one second."""
        self.bench.record(row, Bound(what=what, must=1, goal=0.2, unit="s"), value, note)

    def timed(self, row: str, what: str, do: Callable[[], int]) -> int:
        """Record the longest of the transactions of `do`; return the result of `do`."""
        self.transactions.seconds.clear()
        begun, used, of_server = time.monotonic(), time.process_time(), self.server_cpu()
        count = do()
        seconds, number = time.monotonic() - begun, len(self.transactions.seconds)
        used, of_server = time.process_time() - used, self.server_cpu() - of_server
        note = (
            f"{count:,} in {seconds:.1f} s, {number:,} transactions, "
            f"CPU {used:.1f} s and {of_server:.1f} s in PostgreSQL"
        )
        self.record(row, f"{what}: longest transaction", self.transactions.longest, note)
        return count


def main() -> int:
    """Measure everything; return 1 if a bound is missed or something could not be measured."""
    bench = Bench.of(parser("benchmarks.scale", __doc__).parse_args())
    report, failed = bench.report, False
    try:
        with _prepared(bench) as measured:
            _measure(measured)
    except (MeasurementError, psycopg.Error) as error:
        report.notes.append(f"not everything could be measured: {error}")
        failed = True
    print(report.markdown())
    return 1 if failed or report.misses() else 0


def _measure(measured: Measured) -> None:
    _filled(measured, "submitted", measured.large.submit)
    _dispatch(measured)
    _tick(measured, "all jobs queued")
    _forgetful_broker(measured, "all jobs queued")
    _cancel_and_retry(measured, "all jobs queued")
    _filled(measured, "running", measured.large.begin)
    _tick(measured, "a tenth of the jobs running")
    _settle(measured)
    _forgetful_broker(measured, "a tenth of the jobs running")
    _cancel_and_retry(measured, "a tenth of the jobs running")
    _filled(measured, "finished", measured.large.finish)
    _tick(measured, "all jobs ended")
    _views(measured)
    _cookbook(measured)
    peak = peak_megabytes([psutil.Process()])
    bound = Bound(what="memory of the scheduler, peak", must=_MEGABYTES, goal=200, unit="MB")
    measured.bench.record("memory", bound, peak)
    _commands(measured)


# What is measured


def _filled(measured: Measured, what: str, fill: Callable[[], None]) -> None:
    begun = time.monotonic()
    fill()
    tables = ("jobs", "chunks", "model_calls", "results", "facts", "outbox")
    counts = {
        name: measured.large.count(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name)))
        for name in tables
    }
    held = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    note = f"filling, {what}: {time.monotonic() - begun:.0f} s; {held}"
    tell(note)
    measured.bench.report.notes.append(note)


def _dispatch(measured: Measured) -> None:
    """Send messages as the scheduler does, for a minute, to workers that begin their work at once.

    The rest are alike.
    """

    def send() -> int:
        total, ends_at = 0, time.monotonic() + _DISPATCH_SECONDS
        while time.monotonic() < ends_at and (sent := dispatch.dispatch(measured.context).sent):
            total += sent
            measured.connection.execute("DELETE FROM outbox WHERE sends > 0")
        return total

    tell("sending …")
    measured.timed("dispatch", "messages sent", send)
    mean = statistics.mean(measured.transactions.seconds)
    measured.record("dispatch", f"a batch of {dispatch.BATCH} messages, mean", mean)
    measured.connection.execute("DELETE FROM outbox")
    promise_missing(measured.context)


def _tick(measured: Measured, state: str) -> None:
    """Measure a tick of recovery that finds nothing to recover."""
    measured.transactions.seconds.clear()
    seconds, used = [], time.process_time() + measured.server_cpu()
    for _ in range(_TIMES):
        begun = time.monotonic()
        recover(measured.context)
        seconds.append(time.monotonic() - begun)
    used = (time.process_time() + measured.server_cpu() - used) / _TIMES
    note = (
        f"longest of {_TIMES}, CPU {used:.2f} s, "
        f"longest transaction {measured.transactions.longest:.3f} s"
    )
    measured.record("recovery", f"a tick of recovery, {state}", max(seconds), note)


def _forgetful_broker(measured: Measured, state: str) -> None:
    """Erase the broker's data, and measure how the messages that it held are sent again."""
    dispatch.dispatch(measured.context)
    held = measured.large.count("SELECT count(*) FROM outbox WHERE sends > 0")
    measured.broker.flushall()
    measured.connection.execute("UPDATE outbox SET due_at = now() WHERE sends > 0")
    what = f"messages sent after the broker lost its data, {state}"

    def send_again() -> int:
        recover(measured.context)
        return dispatch.dispatch(measured.context).sent

    measured.timed("recovery", what, send_again)
    again = measured.large.count("SELECT count(*) FROM outbox WHERE sends = 2")
    if not 0 < again == held <= dispatch.MIN_WINDOW:
        raise MeasurementError(f"{what}: {again:,} messages sent again of {held:,}.")


def _cancel_and_retry(measured: Measured, state: str) -> None:
    run_id, context = measured.run_id, measured.context
    measured.timed(
        "cancel", f"cancel, {state}", lambda: run_control.cancel(context.database, run_id)
    )
    measured.timed("retry", f"retry, {state}", lambda: run_control.retry(context, run_id))


def _settle(measured: Measured) -> None:
    """Settle the run as the end of a job does, while other jobs run."""
    run_id, seconds = measured.run_id, []
    for _ in range(_SETTLED):
        begun = time.monotonic()
        with measured.context.database.write() as session:
            runs.settle(session, run_id)
        seconds.append(1000 * (time.monotonic() - begun))
    bound = Bound(what="settling the run at the end of a job", must=20, goal=5, unit="ms")
    note = f"mean of {_SETTLED}, longest {max(seconds):.1f} ms"
    measured.bench.record("settle", bound, statistics.mean(seconds), note)


def _views(measured: Measured) -> None:
    for (name,) in measured.connection.execute(_VIEWS).fetchall():
        first = sql.SQL("SELECT * FROM {} LIMIT 20").format(sql.Identifier(name))
        before = measured.server_cpu()
        times = [_query_seconds(measured, first) for _ in range(_TIMES)]
        cpu = (measured.server_cpu() - before) / _TIMES
        note = f"median of {_TIMES}, first {times[0]:.2f} s, CPU {cpu:.2f} s"
        measured.record("views", f"`{name}`, 20 rows", statistics.median(times), note)


def _cookbook(measured: Measured) -> None:
    """Run the queries of the cookbook over all rows."""
    for number, question in _QUESTION.findall(_COOKBOOK.read_text("utf-8")):
        before = measured.server_cpu()
        seconds = _query_seconds(measured, sql.SQL(question.rstrip().rstrip(";")))
        note = f"CPU {measured.server_cpu() - before:.2f} s"
        # `chordwise sql` ends a statement after thirty seconds.
        bound = Bound(what=f"question {number}, all rows", must=30, goal=1, unit="s")
        measured.bench.record("cookbook", bound, seconds, note)


def _query_seconds(measured: Measured, query: sql.SQL | sql.Composed) -> float:
    begun = time.monotonic()
    with measured.connection.cursor() as cursor:
        for _ in cursor.stream(query):
            pass
    return time.monotonic() - begun


def _commands(measured: Measured) -> None:
    """Run commands in this process, without a program start; the first run loads code."""
    for arguments in (("runs",), ("runs", "large"), ("results",), ("results", "--run", "large")):
        times = [_command_seconds(measured, *arguments) for _ in range(1 + _TIMES)]
        what = f"`chordwise {' '.join(arguments)}`, without program start"
        measured.record("commands", what, min(times[1:]), f"minimum of {_TIMES}")


def _command_seconds(measured: Measured, *arguments: str) -> float:
    settings, output = measured.context.settings, io.StringIO()
    urls = {"DATABASE": settings.database_url, "BROKER": settings.broker_url}
    os.environ.update(
        {f"CHORDWISE_{name}_URL": url.get_secret_value() for name, url in urls.items() if url}
    )
    begun = time.monotonic()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = application.run([*arguments, "--home", str(settings.home)])
    if code:
        raise MeasurementError(f"`{arguments[0]}` ended with {code}: {output.getvalue()[-300:]}")
    return time.monotonic() - begun


# Where it is measured


@contextlib.contextmanager
def _prepared(bench: Bench) -> Iterator[Measured]:
    """Start servers in a temporary folder with an empty database; remove everything afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="cwscale"))
    (folder / "run").mkdir(mode=0o700)
    postgres = EmbeddedPostgres(folder / "postgres", folder / "run")
    valkey = EmbeddedValkey(folder / "valkey", folder / "run")
    try:
        postgres.start()
        valkey.start()
        with (
            psycopg.connect(postgres.url(), autocommit=True) as connection,
            redis.Redis.from_url(valkey.url()) as broker,
            _scheduler(folder, postgres.url(), valkey.url()) as (context, transactions),
        ):
            yield Measured(
                bench=bench,
                context=context,
                transactions=transactions,
                connection=connection,
                large=LargeRun(connection=connection, jobs=bench.scaled(JOBS), tell=tell),
                broker=broker,
                server=_process(postgres),
            )
    finally:
        valkey.stop()
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _scheduler(
    folder: Path, database_url: str, broker_url: str
) -> Iterator[tuple[Context, Transactions]]:
    """Open the context of a scheduler over a migrated database.

    The scheduler's modules are loaded, so this process takes at least the memory of a scheduler.
    """
    importlib.import_module("scheduler.__main__")
    url = SecretStr(database_url)
    settings = load(home=folder / "home", database_url=url, broker_url=SecretStr(broker_url))
    logging.configure(settings.logging, "scheduler")
    engine = open_engine(url)
    migration.migrate(engine)
    engine.dispose()
    context, transactions = open_context(settings, "scheduler"), Transactions()
    transactions.watch(context.database.engine)
    try:
        yield context, transactions
    finally:
        context.leases.close()
        context.database.engine.dispose()


def _process(postgres: EmbeddedPostgres) -> psutil.Process:
    identity = postgres.identity()
    if identity is None:
        raise MeasurementError("PostgreSQL has ended.")
    return psutil.Process(identity.pid)


if __name__ == "__main__":
    sys.exit(main())
