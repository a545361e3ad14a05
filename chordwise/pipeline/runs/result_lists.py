"""Lists of results as people filter, search and sort them, and the SQL that says the same."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Double,
    Select,
    Uuid,
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
    union,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.domain.tasks import AnalysisType
from chordwise.storage.record import first_id, words_of
from chordwise.storage.runs import Run


class ResultOrder(StrEnum):
    """What comes first in a list."""

    NEWEST = "newest"
    OLDEST = "oldest"
    LEAST_CONFIDENT = "least_confident"
    MOST_CONFIDENT = "most_confident"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFilter:
    """Which results of the view `document_results` are listed, and in which order.

    What is `None` or empty does not narrow them down. `document` is a part of the source. `words`
    are looked for in the documents and in the values of the answers, as a search engine takes them:
    all of them, `"a phrase"`, `or`, `-without`.
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

    @property
    def mark(self) -> Mark:
        """Where the row stands in any order."""
        return Mark(self.confidence, self.result_id)


@dataclass(frozen=True, slots=True)
class Mark:
    """The row after which a page of a list begins."""

    confidence: float
    result_id: uuid.UUID


_NAMES = (*ListedResult.__dataclass_fields__, "saved_as")
_OF_VIEW = table("document_results", *map(column, _NAMES)).alias("r").c
# Other styles of parameters double each percent sign.
_SQL = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # not typed there


def statement(wanted: ResultFilter) -> Select[*tuple[object, ...]]:
    """Return the statement for all that is wanted."""
    return _columns().where(*_conditions(wanted)).order_by(*_order(wanted.order))


def _columns() -> Select[*tuple[object, ...]]:
    return select(*(_OF_VIEW[name] for name in ListedResult.__dataclass_fields__))


def as_sql(wanted: ResultFilter) -> str:
    """Return the statement for all that is wanted as it stands, for `chordwise sql` and exports."""
    return literal_sql(statement(wanted))


def literal_sql(found: Select[*tuple[object, ...]]) -> str:
    """Return a statement as text, with its values in it."""
    return str(found.compile(dialect=_SQL, compile_kwargs={"literal_binds": True}))


def page(
    session: Session, wanted: ResultFilter, limit: int, after: Mark | None = None
) -> Select[*tuple[object, ...]] | None:
    """Return the statement for the first results of a list, or the first ones after a row.

    It is planned well in this transaction. `None` where there is no run that could have any.
    """
    written = _written(session, wanted)
    if written is None:
        return None
    _plan_for_few(session, wanted)
    order = _order(wanted.order)
    follows = () if after is None else (_follows(wanted.order, after),)
    asked = (*_conditions(replace(wanted, words="")), *follows, *written)
    if not wanted.words:
        return _columns().where(*asked).order_by(*order).limit(limit)
    ids = select(_OF_VIEW.result_id).where(*asked).order_by(*order).limit(limit)
    found = _OF_VIEW.result_id.in_(_having(wanted.words, ids))
    return _columns().where(found).order_by(*order).limit(limit)


def read(
    session: Session, wanted: ResultFilter, limit: int, after: Mark | None = None
) -> Sequence[ListedResult]:
    """Return the first results of a list, or the first ones after a row."""
    found = page(session, wanted, limit, after)
    if found is None:
        return []
    return [ListedResult(**row) for row in session.execute(found).mappings()]


def count(session: Session, wanted: ResultFilter, limit: int) -> int:
    """Return how many results there are, or `limit` if there are more."""
    written = _written(session, wanted)
    if written is None:
        return 0
    asked = (*_conditions(replace(wanted, words="")), *written)
    ids = select(_OF_VIEW.result_id).where(*asked).limit(limit)
    found = _having(wanted.words, ids).limit(limit) if wanted.words else ids
    _plan_for_few(session, wanted)
    return session.scalar(select(func.count()).select_from(found.subquery())) or 0


def _plan_for_few(session: Session, wanted: ResultFilter) -> None:
    """Let the planner take what finds a few rows soon, up to the end of the transaction."""
    # Each helper of a parallel plan reads on by itself, though a few rows are wanted only.
    session.execute(text("SET LOCAL max_parallel_workers_per_gather = 0"))
    if wanted.words:  # the planner takes the words of a text for as cheap as a comparison
        session.execute(text("SET LOCAL enable_seqscan = off"))


# How far the clocks may differ that ids and ends of runs are made with.
_CLOCKS_DIFFER = timedelta(hours=1)


def _written(session: Session, wanted: ResultFilter) -> Sequence[ColumnElement[bool]] | None:
    """Return the conditions that results were written while the runs that are wanted went on.

    The ids of results ascend with time: without these conditions the results of all other runs
    would be read to find those of one. `None` where there is no such run.
    """
    if not wanted.run and not wanted.saved_as:
        return ()
    of_runs = [
        getattr(Run, name) == value
        for name, value in (("name", wanted.run), ("saved_as", wanted.saved_as))
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
    """Return the values that the newest results have in the columns that lists are filtered by."""
    columns = (_OF_VIEW[name] for name in _CHOICES)
    newest = select(*columns).order_by(_OF_VIEW.result_id.desc()).limit(_COUNTED)
    rows = session.execute(newest).mappings().all()
    return {
        name: list(dict.fromkeys(str(row[name]) for row in rows if row[name] is not None))
        for name in _CHOICES
    }


def _conditions(wanted: ResultFilter) -> Iterator[ColumnElement[bool]]:
    for name in ("run", "saved_as", "analysis_type", "status", "label"):
        if value := getattr(wanted, name):
            yield _OF_VIEW[name] == str(value)
    for name in ("grounded", "needs_review"):
        if (is_so := getattr(wanted, name)) is not None:
            yield _OF_VIEW[name] if is_so else not_(_OF_VIEW[name])
    if wanted.min_confidence is not None or wanted.max_confidence is not None:
        low, high = wanted.min_confidence or 0.0, wanted.max_confidence
        yield _OF_VIEW.confidence.between(low, 1.0 if high is None else high)
    if wanted.document:
        yield _OF_VIEW.source.icontains(wanted.document, autoescape=True)
    if wanted.words:
        yield or_(*_mentions(wanted.words))


def _mentions(words: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions that the document of a result has these words, and that a value has."""
    documents = table("documents", column("id")).alias("d")
    facts = table("facts", column("job_id")).alias("f")
    sought = func.websearch_to_tsquery(literal_column("'simple'"), words)
    in_text, in_value = (
        literal_column(words_of(name)).op("@@", is_comparison=True)(sought)
        for name in ("d.text", "f.final_value")
    )
    of_document = documents.c.id == _OF_VIEW.document_id
    of_job = facts.c.job_id == _OF_VIEW.job_id
    return (
        select(documents.c.id).where(of_document, in_text).exists(),
        select(facts.c.job_id).where(of_job, in_value).exists(),
    )


def _having(words: str, results: Select[uuid.UUID]) -> CompoundSelect[uuid.UUID]:
    """Return those of a selection of ids that have these words.

    Documents and values are searched apart, each in the order and up to the limit of the selection:
    so the first results with a word that is in every document are found by reading a few.
    """
    return union(*(results.where(each) for each in _mentions(words)))


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


def _follows(order: ResultOrder, after: Mark) -> ColumnElement[bool]:
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
