"""Filtered, searched and sorted lists of results, and the equivalent SQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from sqlalchemy import (
    ColumnElement,
    Double,
    Select,
    Text,
    Uuid,
    cast,
    column,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    table,
    text,
    tuple_,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.orm import Session

from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.json_values import JsonObject
from chordwise.storage.record import first_id, words_of
from chordwise.storage.runs import Run


class ResultOrder(StrEnum):
    """The order of a list."""

    NEWEST = "newest"
    OLDEST = "oldest"
    LEAST_CONFIDENT = "least_confident"
    MOST_CONFIDENT = "most_confident"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFilter:
    """The results of the view `document_results` that are listed, and their order.

    A value that is `None` or empty does not filter. `document` is a substring of the source.
    `words` are searched in the documents and in the values of the answers, with the syntax of a
    search engine: all words, `"a phrase"`, `or`, `-without`.
    """

    run: str = ""
    saved_as: str = ""
    analysis_type: AnalysisType | None = None
    status: str = ""
    label: str = ""
    document: str = ""
    words: str = ""
    min_confidence: float | None = None
    max_confidence: float | None = None
    grounded: bool | None = None
    needs_review: bool | None = None
    order: ResultOrder = ResultOrder.NEWEST


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedResult:
    """A row of a list; the columns are those of the view `document_results`."""

    run: str
    source: str
    title: str | None
    analysis_type: str
    status: str
    label: str | None
    confidence: float
    quality: float
    coverage: float
    grounded: bool
    needs_review: bool
    corrected: bool
    nothing_found: bool
    output: JsonObject
    provider: str
    model: str
    created_at: datetime
    document_id: uuid.UUID
    job_id: uuid.UUID
    result_id: uuid.UUID


@dataclass(frozen=True, slots=True)
class RowMark:
    """The row after which a page of a list starts."""

    confidence: float
    result_id: uuid.UUID


_NAMES = (*ListedResult.__dataclass_fields__, "saved_as")
_OF_VIEW = table("document_results", *map(column, _NAMES)).alias("r").c
# Other parameter styles double each percent sign.
_SQL = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # not typed there


def _columns() -> Select[*tuple[object, ...]]:
    return select(*(_OF_VIEW[name] for name in ListedResult.__dataclass_fields__))


def as_sql(filters: ResultFilter) -> str:
    """Return the complete statement with its values, for `chordwise sql` and exports."""
    return literal_sql(_columns().where(*_conditions(filters)).order_by(*_order(filters.order)))


def literal_sql(found: Select[*tuple[object, ...]]) -> str:
    """Return a statement as text, with literal values."""
    return str(found.compile(dialect=_SQL, compile_kwargs={"literal_binds": True}))


def page(
    session: Session, filters: ResultFilter, limit: int, after: RowMark | None = None
) -> Select[*tuple[object, ...]] | None:
    """Return the statement for the first results of a list, or for those after a row.

    It sets planner options for this transaction. Returns `None` if there is no matching run.
    """
    written = _written(session, filters)
    if written is None:
        return None
    _plan_for_few(session, filters)
    follows = () if after is None else (_follows(filters.order, after),)
    conditions = (*_filter_conditions(session, filters), *follows, *written)
    return _columns().where(*conditions).order_by(*_order(filters.order)).limit(limit)


def read(
    session: Session, filters: ResultFilter, limit: int, after: RowMark | None = None
) -> Sequence[ListedResult]:
    """Return the first results of a list, or the first ones after a row."""
    found = page(session, filters, limit, after)
    if found is None:
        return []
    return [ListedResult(**row) for row in session.execute(found).mappings()]


def count(session: Session, filters: ResultFilter, limit: int) -> int:
    """Return the number of results, at most `limit`."""
    written = _written(session, filters)
    if written is None:
        return 0
    _plan_for_few(session, filters)
    conditions = (*_filter_conditions(session, filters), *written)
    found = select(_OF_VIEW.result_id).where(*conditions).limit(limit)
    return session.scalar(select(func.count()).select_from(found.subquery())) or 0


def _plan_for_few(session: Session, filters: ResultFilter) -> None:
    """Set planner options that favor the first few rows, until the end of the transaction."""
    # Parallel workers would read more rows than the few that are needed.
    session.execute(text("SET LOCAL max_parallel_workers_per_gather = 0"))
    if filters.words:  # the planner would read and sort all results
        session.execute(text("SET LOCAL enable_seqscan = off"))


_MAX_RARE = 1_000


def _filter_conditions(session: Session, filters: ResultFilter) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions for a part of a list.

    If few documents and values contain the words, their results are listed by id. Otherwise
    PostgreSQL would read the other results too, in the order of the list.
    """
    yield from _conditions(filters)
    if not filters.words:
        return
    results = table("results", *map(column, ("id", "job_id", "document_id"))).c
    found = set[uuid.UUID]()
    for name, ids, _ in _mentions(filters.words):
        few = session.scalars(ids.limit(_MAX_RARE + 1)).all()
        if len(few) > _MAX_RARE:
            return
        found.update(session.scalars(select(results.id).where(results[name].in_(few))))
    yield _OF_VIEW.result_id.in_(found)


# The maximum difference between the clocks that set ids and the ends of runs.
_CLOCKS_DIFFER = timedelta(hours=1)


def _written(session: Session, filters: ResultFilter) -> Sequence[ColumnElement[bool]] | None:
    """Return the conditions that limit results to the time span of the matching runs.

    The ids of results ascend with time. Without these conditions, the results of all other runs
    would be read to find those of one. Returns `None` if there is no such run.
    """
    if not filters.run and not filters.saved_as:
        return ()
    of_runs = [
        getattr(Run, name) == value
        for name, value in (("name", filters.run), ("saved_as", filters.saved_as))
        if value
    ]
    is_over = func.bool_and(Run.finished_at.is_not(None))
    spans = select(func.min(Run.created_at), is_over, func.max(Run.finished_at)).where(*of_runs)
    begun, are_over, ended = session.execute(spans).one()
    if begun is None:
        return None
    since = _OF_VIEW.result_id >= first_id(begun - _CLOCKS_DIFFER)
    return (since, _OF_VIEW.result_id < first_id(ended + _CLOCKS_DIFFER)) if are_over else (since,)


_CHOICES = ("run", "saved_as", "label")
_COUNTED = 1_000


def choices(session: Session) -> dict[str, list[str]]:
    """Return the values of the newest results in the columns for filters."""
    columns = (_OF_VIEW[name] for name in _CHOICES)
    newest = select(*columns).order_by(_OF_VIEW.result_id.desc()).limit(_COUNTED)
    rows = session.execute(newest).mappings().all()
    return {
        name: list(dict.fromkeys(str(row[name]) for row in rows if row[name] is not None))
        for name in _CHOICES
    }


def _conditions(filters: ResultFilter) -> Iterator[ColumnElement[bool]]:
    for name in ("run", "saved_as", "analysis_type", "status", "label"):
        if value := getattr(filters, name):
            yield _OF_VIEW[name] == str(value)
    for name in ("grounded", "needs_review"):
        if (is_so := getattr(filters, name)) is not None:
            yield _OF_VIEW[name] if is_so else not_(_OF_VIEW[name])
    if filters.min_confidence is not None or filters.max_confidence is not None:
        low, high = filters.min_confidence or 0.0, filters.max_confidence
        yield _OF_VIEW.confidence.between(low, 1.0 if high is None else high)
    if filters.document:
        yield _OF_VIEW.source.icontains(filters.document, autoescape=True)
    if filters.words:
        yield or_(*(is_so for _, _, is_so in _mentions(filters.words)))


_Mention: TypeAlias = tuple[str, Select[uuid.UUID], ColumnElement[bool]]


def _mentions(words: str) -> Iterator[_Mention]:
    """Yield the conditions that a result's document, or one of its values, contains these words.

    Each consists of a column of the view, the statement for the matching values of that column, and
    the condition. The statement uses only the index, as checking a single text takes as long as
    searching all. The index does not contain the order of the words of a phrase; it is checked for
    each listed result.
    """
    documents = table("documents", column("id")).alias("d")
    facts = table("facts", column("job_id")).alias("f")
    sought = func.websearch_to_tsquery(literal_column("'simple'"), words)
    is_phrase = '"' in words and "-" not in words
    without_order = func.replace(cast(sought, Text), "<->", "&")
    for name, key, searched in (
        ("document_id", documents.c.id, "d.text"),
        ("job_id", facts.c.job_id, "f.final_value"),
    ):
        matches = literal_column(words_of(searched)).op("@@", is_comparison=True)
        ids = select(key).where(matches(cast(without_order, TSQUERY) if is_phrase else sought))
        # As a part of the condition it would be evaluated again for each result.
        having = ids.cte(f"having_{name}").prefix_with("MATERIALIZED")
        is_so: ColumnElement[bool] = _OF_VIEW[name].in_(select(having))
        if is_phrase:
            each = select(func.bool_or(matches(sought))).where(key == _OF_VIEW[name])
            is_so &= each.scalar_subquery()
        yield name, ids, is_so


def _order(order: ResultOrder) -> Sequence[ColumnElement[object]]:
    match order:
        case ResultOrder.NEWEST:
            return [_OF_VIEW.result_id.desc()]
        case ResultOrder.OLDEST:
            return [_OF_VIEW.result_id]
        case ResultOrder.LEAST_CONFIDENT:
            return [_OF_VIEW.confidence, _OF_VIEW.result_id]
        case ResultOrder.MOST_CONFIDENT:
            return [_OF_VIEW.confidence.desc(), _OF_VIEW.result_id.desc()]


def _follows(order: ResultOrder, after: RowMark) -> ColumnElement[bool]:
    place = tuple_(_OF_VIEW.confidence, _OF_VIEW.result_id)
    mark = tuple_(literal(after.confidence, Double()), literal(after.result_id, Uuid()))
    match order:
        case ResultOrder.NEWEST:
            return _OF_VIEW.result_id < after.result_id
        case ResultOrder.OLDEST:
            return _OF_VIEW.result_id > after.result_id
        case ResultOrder.LEAST_CONFIDENT:
            return place > mark
        case ResultOrder.MOST_CONFIDENT:
            return place < mark
