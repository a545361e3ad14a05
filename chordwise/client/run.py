"""The connection of a client, and its runs: their progress and results, and feedback on them."""

from __future__ import annotations

import html
import importlib
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar, cast

from pydantic import SecretStr
from sqlalchemy import select

from chordwise.domain import answer_tables, identifiers
from chordwise.domain.analysis_tasks import AnalysisType, analysis_type
from chordwise.domain.identifiers import split_commas
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning.feedback_input import FeedbackInput
from chordwise.domain.learning.truths import Verdict
from chordwise.embedded import stack
from chordwise.embedded.home import Level
from chordwise.errors import ConfigurationError, UsageError
from chordwise.pipeline.exports.table import Column
from chordwise.pipeline.intake.run_options import from_json
from chordwise.pipeline.jobs import run_control as control
from chordwise.pipeline.learning import feedback
from chordwise.pipeline.models.budgets import checked_cap
from chordwise.pipeline.runs.user_sql import Row
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.startup import open_context
from chordwise.relations import accounts, progress
from chordwise.relations import results as stored_results
from chordwise.relations.progress import Pace, Progress
from chordwise.relations.relation import Row as RelationRow
from chordwise.relations.results import FACTS, ResultSelection
from chordwise.rendering.live import Display, display
from chordwise.rendering.run_waits import RunWatch
from chordwise.rendering.screen import Screen
from chordwise.settings import Settings
from chordwise.storage import answer_tables as stored_tables
from chordwise.storage.database import Database, driver, open_engine, require_compatible
from chordwise.storage.jobs import Job
from chordwise.storage.metadata import require_ready
from chordwise.storage.postgresql import admitted
from chordwise.storage.results import Result as ResultRow
from chordwise.storage.runs import Run as StoredRun

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import psycopg
    import pyarrow as pa

_CONNECTIONS = 5
_AT_ONCE = 200
_LOOK_SECONDS = 0.5
_OVERLAP_MS = 60_000
"""The time by which a result may be committed after results with greater ids."""
_MS_BITS = 80


class Connection:
    """A connection that is opened on first use and can be shared by threads."""

    def __init__(self, settings: Settings, config: Path | None = None) -> None:
        self._initial = self._settings = settings
        self._config = config
        self._database: Database | None = None
        self._context: Context | None = None
        self._turn = RLock()

    @property
    def settings(self) -> Settings:
        """The settings, with the addresses of the embedded services once they are started."""
        return self._settings

    @property
    def database(self) -> Database:
        """The database; an embedded one is started first.

        Raises:
            ConfigurationError: The schema is not compatible with this version.
            ServiceUnavailableError: The database cannot be reached.
        """
        with self._turn:
            if self._database is None:
                engine = open_engine(self.address, pool_size=_CONNECTIONS, name="chordwise client")
                admitted(lambda: require_compatible(engine))
                self._database = Database(engine)
            return self._database

    @property
    def address(self) -> SecretStr:
        """The address of the database; an embedded one is started first."""
        with self._turn:
            if self._settings.database_url is None:
                self._reach(Level.DATABASE)
            return self._settings.require_database_url()

    @property
    def context(self) -> Context:
        """The context to submit work with; embedded services are started first."""
        with self._turn:
            if self._context is None:
                admitted(lambda: require_ready(self.database.engine))
                self._reach(Level.ALL)
                self._context = open_context(self._settings, "client", _CONNECTIONS)
            return self._context

    def close(self) -> None:
        """Close the connections; submitted work continues."""
        with self._turn:
            if self._context is not None:
                self._context.leases.close()
                self._context.database.close()
                self._context = None
            if self._database is not None:
                self._database.close()
                self._database = None

    def _reach(self, level: Level) -> None:
        self._settings = stack.ensure(self._initial, level, config=self._config)


@dataclass(frozen=True, slots=True, kw_only=True)
class FactValue:
    """A value of an answer; its attributes are columns of the table `facts`.

    `trust` is its state, and `reasons` say why a person should check it; both are `None` for
    evidence, which has no review.
    `value` includes feedback: it is the corrected value if there is one, and `None` if nothing was
    found or the value was rejected. `original` is the value in the model's answer.
    """

    item: str
    value: str | None
    original: str | None
    verdict: str | None
    trust: str | None
    reasons: Sequence[str] | None
    number: Decimal | None
    currency: str | None
    unit: str | None
    date: date | None
    confidence: float | None
    quote: str | None
    start_char: int | None
    end_char: int | None
    grounded: bool | None
    grounding: str | None
    value_in_quote: bool | None
    page: int | None
    place: str | None
    boxes: JsonValue
    path: str
    parent: str | None
    row_index: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An answer about a document, with its origin.

    `document` is the file's name. `all_facts` has every value, in the order of the output, which
    includes the corrections of users. `review_reason` joins the message of the intake and the
    reason for the review of the answer. `flags` are the suspicious passages of the document.
    `transcribed_by` is the model that transcribed its pages, or `tesseract`.
    """

    document: str
    run: str
    source: str
    title: str | None
    document_id: uuid.UUID
    job_id: uuid.UUID
    analysis_type: str
    status: str
    output: JsonObject
    corrected: bool
    nothing_found: bool
    confidence: float
    quality: float
    coverage: float
    agreement: float | None
    critique: JsonObject | None
    needs_review: bool
    review_reason: str | None
    flags: JsonValue
    transcribed_by: str | None
    failed_chunks: JsonValue
    missing_rows: JsonValue
    row_counts: JsonValue
    failed_checks: JsonValue
    provider: str
    model: str
    language_model: bool
    prompt_version: str
    reused: bool
    created_at: datetime
    result_id: uuid.UUID
    all_facts: tuple[FactValue, ...]

    @property
    def facts(self) -> Mapping[str, FactValue]:
        """The value with the highest confidence of each item, by item."""
        surest: dict[str, FactValue] = {}
        for fact in self.all_facts:
            best = surest.get(fact.item)
            if best is None or _certainty(fact) > _certainty(best):
                surest[fact.item] = fact
        return surest

    @classmethod
    def read(cls, connection: Connection, selection: ResultSelection) -> Iterator[Result]:
        """Yield stored results, read in batches."""
        with connection.database.read() as session:
            job_ids = stored_results.job_ids(driver(session), selection)
        for start in range(0, len(job_ids), _AT_ONCE):
            yield from _read(connection, selection, job_ids[start : start + _AT_ONCE])

    def _repr_html_(self) -> str:
        """Return the values with their quotes as HTML, for notebooks."""
        rows = "".join(
            f"<tr><td>{_cell(fact.item)}</td><td>{_cell(fact.value)}</td>"
            f"<td><i>{_cell(fact.quote)}</i> {html.escape(fact.place or '')}</td></tr>"
            for fact in self.all_facts
        )
        heading = f"<b>{_cell(self.document)}</b> · {_cell(self.analysis_type)} · {self.status}"
        return f"{heading}<table>{rows}</table>"


class Run:
    """A run: documents that were submitted together. It continues without this object."""

    def __init__(self, connection: Connection, run_id: uuid.UUID, name: str) -> None:
        self._connection = connection
        self.id = run_id
        self.name = name

    def __repr__(self) -> str:
        return f"Run({self.name!r})"

    def _repr_html_(self) -> str:
        """Return the status as HTML, for notebooks."""
        state = self.progress()
        return (
            f"<b>{_cell(self.name)}</b> · {state.status} · "
            f"{state.jobs.documents_done} of {state.jobs.documents} documents"
        )

    @property
    def status(self) -> str:
        """`open`, `paused`, `finished` or `cancelled`."""
        return self.progress().status

    def progress(self) -> Progress:
        """Return the progress of the run."""
        with self._connection.database.read() as session:
            return progress.read(driver(session), self.id)

    def account(self) -> accounts.Account:
        """Return the account of the run: its intakes by outcome and its jobs by status."""
        with self._connection.database.read() as session:
            return accounts.of_run(driver(session), self.id)

    def failures(self, limit: int = 10_000) -> Sequence[RelationRow]:
        """Return the failed or incomplete intakes, jobs and chunks, with the reason and a hint."""
        with self._connection.database.read() as session:
            return accounts.failures(driver(session), self.name, limit)

    def wait(self, *, timeout: float | None = None, progress: bool = False) -> accounts.Account:
        """Wait until the run is over and return its account; `progress` shows progress bars.

        Raises:
            TimeoutError: The run is not over after `timeout` seconds; it continues.
            ServiceUnavailableError: The database stays unavailable.
        """
        screen, connection = Screen(), self._connection
        deadline = None if timeout is None else time.monotonic() + timeout

        def pause(seconds: float) -> None:
            left = seconds if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(
                    f"The run {self.name} is not over after {timeout:g} seconds. It continues."
                )
            time.sleep(min(seconds, left))  # noqa: TID251 - waits in real time

        with display(screen) if progress else nullcontext(Display()) as view:
            warn = screen.info if progress else lambda _sentence: None
            watch = RunWatch(connection.settings, connection.database, warn, pause=pause)
            watch.wait_until_over(self.id, view)
        return self.account()

    def results(
        self,
        *,
        as_completed: bool = False,
        types: Sequence[AnalysisType | str] = (),
        progress: bool = False,
    ) -> Iterator[Result]:
        """Yield the stored results in the order of the intake.

        With `as_completed`, each result is yielded once it is stored, until the run is over.
        Documents without an answer are listed by `failures()` only.

        Raises:
            UsageError: There is no such analysis type.
        """
        selection = ResultSelection(run_id=self.id, types=analysis_types(types))
        if not as_completed:
            yield from Result.read(self._connection, selection)
            return
        seen_ids: set[uuid.UUID] = set()
        after, pace = uuid.UUID(int=0), Pace()
        with display(Screen()) if progress else nullcontext(Display()) as view:
            while True:
                state = self.progress()  # before the results, so that none is missed
                pace.record(time.monotonic(), state)
                view.progress(state, pace)
                for result_id, job_id in self._newer(after):
                    after = max(after, result_id)
                    if job_id not in seen_ids:
                        seen_ids.add(job_id)
                        yield from _read(self._connection, selection, [job_id])
                if state.is_over:
                    return
                time.sleep(_LOOK_SECONDS)  # noqa: TID251 - waits in real time

    def retry(self, *, budget_usd: Decimal | float | None = None) -> int:
        """Retry the jobs that have not succeeded; return their number. See `chordwise continue`."""
        cap = None if budget_usd is None else checked_cap(Decimal(str(budget_usd)))
        return control.retry(self._connection.context, self.id, cap)

    def cancel(self) -> int:
        """Cancel the unfinished jobs; return their number."""
        return control.cancel(self._connection.database, self.id)

    def feedback(
        self,
        document: str,
        *,
        correct: Mapping[str, JsonValue] | None = None,
        approve: bool = False,
        reject: bool = False,
        note: str = "",
        author: str = "",
    ) -> int:
        """Approve, reject or correct a result; return the number of newly stored verdicts.

        `document` is a substring of the name of one document. `correct` has the right values by
        item.

        Raises:
            UsageError: No result or several results match, or a value is not valid for the
                question.
        """
        judged = [(Verdict.CORRECTED, path, value) for path, value in (correct or {}).items()]
        judged += [(Verdict.APPROVED, "", None)] if approve else []
        judged += [(Verdict.REJECTED, "", None)] if reject else []
        if not judged:
            raise UsageError(
                "No judgment is given.", "Give correct={…}, approve=True or reject=True."
            )
        results = ResultSelection(document=document)
        entered = [
            FeedbackInput(verdict=verdict, path=path, value=value, note=note, author=author)
            for verdict, path, value in judged
        ]
        with self._connection.database.write() as session:
            return feedback.give(session, feedback.one(session, self.name, results), entered)

    def to_arrow(self) -> pa.Table:
        """Return the answers as a table with a row for each document, as in `answers.NAME`.

        The column types do not depend on the values.

        Raises:
            ConfigurationError: pyarrow is not installed.
        """
        _required("pyarrow")
        from chordwise.pipeline.exports import parquet  # noqa: PLC0415 - imports pyarrow

        return parquet.arrow_table(*self._table())

    def to_pandas(self) -> pd.DataFrame:
        """Return the table of answers as a pandas data frame, with dates as `datetime64`.

        Raises:
            ConfigurationError: pandas is not installed.
        """
        library, columns = _required("pandas"), self._plain_columns()
        frame = library.DataFrame(columns, columns=list(columns))
        for name, values in columns.items():
            days = [value for value in values if value is not None]
            if days and all(type(value) in (date, datetime) for value in days):
                frame[name] = library.to_datetime(frame[name], utc=isinstance(days[0], datetime))
        return cast("pd.DataFrame", frame)

    def to_polars(self) -> pl.DataFrame:
        """Return the table of answers as a Polars data frame.

        Raises:
            ConfigurationError: polars is not installed.
        """
        frame = _required("polars").DataFrame(self._plain_columns(), strict=False)
        return cast("pl.DataFrame", frame)

    def _plain_columns(self) -> dict[str, list[object]]:
        """Return the values of each column, with ids as `str` and decimals as `float`."""
        columns, rows = self._table()
        return {
            column.name: [_plain(row[index]) for row in rows]
            for index, column in enumerate(columns)
        }

    def _table(self) -> tuple[Sequence[Column], Sequence[Row]]:
        with self._connection.database.read() as session:
            run = session.get_one(StoredRun, self.id)
            options = from_json(run.options, run.name)
            columns = answer_tables.columns_for(options.types, options.analysis)
            if run.saved_as and (saved := session.get(stored_tables.AnswerTable, run.saved_as)):
                keys = {column.key for column in columns}
                merged = answer_tables.with_new_columns(stored_tables.columns_of(saved), columns)
                columns = [column for column in merged if column.key in keys]
            kind = answer_tables.kind_of_rows(options.types)
            query = stored_tables.query_of_run(self.id, kind, columns)
            driver = cast("psycopg.Connection", session.connection().connection.driver_connection)
            with driver.cursor() as cursor:
                cursor.execute(query.encode())
                described = [Column.described(column) for column in cursor.description or ()]
                return described, cursor.fetchall()

    def _newer(self, after: uuid.UUID) -> Sequence[tuple[uuid.UUID, uuid.UUID]]:
        """Return the ids of results since a minute before `after`, with their jobs."""
        earlier = max(0, (after.int >> _MS_BITS) - _OVERLAP_MS) << _MS_BITS
        newer = (
            select(ResultRow.id, ResultRow.job_id)
            .join(Job, Job.id == ResultRow.job_id)
            .where(Job.run_id == self.id, ResultRow.id > uuid.UUID(int=earlier))
            .order_by(ResultRow.id)
        )
        with self._connection.database.read() as session:
            return [(result_id, job_id) for result_id, job_id in session.execute(newer)]


def _read(
    connection: Connection, selection: ResultSelection, job_ids: Sequence[uuid.UUID]
) -> Iterator[Result]:
    batch = ResultSelection(run_id=selection.run_id, types=selection.types, job_ids=tuple(job_ids))
    with connection.database.read() as session:
        results = {row["job_id"]: row for row in stored_results.read(driver(session), batch)}
        facts: dict[uuid.UUID, list[FactValue]] = {}
        for row in FACTS.read(driver(session), {"job_ids": list(job_ids)}):
            stated = {**row, "value": row["final_value"], "original": row["value"]}
            fact = FactValue(**{name: stated[name] for name in FactValue.__dataclass_fields__})
            facts.setdefault(row["job_id"], []).append(fact)
    for job_id in (job_id for job_id in job_ids if job_id in results):
        result = results[job_id]
        name = result["source"].rpartition("/")[2] or result["source"]
        yield Result(**result, document=name, all_facts=tuple(facts.get(job_id, ())))


def _certainty(fact: FactValue) -> tuple[bool, float]:
    return fact.value is not None, fact.confidence or 0.0


def _cell(value: str | None) -> str:
    return html.escape(value or "∅")


def _plain(value: object) -> object:
    match value:
        case Decimal():
            return float(value)
        case uuid.UUID():
            return str(value)
        case list():
            return [_plain(item) for item in value]
        case _:
            return value


_Member = TypeVar("_Member", bound=StrEnum)


def member(of: type[_Member], name: str, what: str) -> _Member:
    """Return the member of an enumeration that has this name; `what` describes it in the error.

    Raises:
        UsageError: It has no such member.
    """
    try:
        return of(name)
    except ValueError as error:
        hint = identifiers.known_names(name, of)
        raise UsageError(f"There is no {what} “{name}”.", hint) from error


def analysis_types(names: Iterable[str]) -> tuple[AnalysisType, ...]:
    """Return the analysis types of these names, or of the names in a single string.

    Raises:
        UsageError: There is no such type.
    """
    listed = split_commas(names) if isinstance(names, str) else names
    return tuple(map(analysis_type, listed))


def _required(library: str) -> ModuleType:
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{library} is not installed.", f"pip install {library}"
        ) from error
