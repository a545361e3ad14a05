"""Lists of results as people filter, search and sort them, and the SQL that says the same."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    ColumnElement,
    Double,
    Select,
    Uuid,
    column,
    func,
    literal,
    literal_column,
    not_,
    select,
    table,
    tuple_,
    union,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.domain.tasks import AnalysisType
from chordwise.storage.record import words_of


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
    columns = (_OF_VIEW[name] for name in ListedResult.__dataclass_fields__)
    return select(*columns).where(*_conditions(wanted)).order_by(*_order(wanted.order))


def as_sql(wanted: ResultFilter) -> str:
    """Return the statement for all that is wanted as it stands, for `chordwise sql` and exports."""
    return literal_sql(statement(wanted))


def literal_sql(found: Select[*tuple[object, ...]]) -> str:
    """Return a statement as text, with its values in it."""
    return str(found.compile(dialect=_SQL, compile_kwargs={"literal_binds": True}))


def page(
    wanted: ResultFilter, limit: int, after: Mark | None = None
) -> Select[*tuple[object, ...]]:
    """Return the statement for the first results of a list, or the first ones after a row."""
    found = statement(wanted).limit(limit)
    return found if after is None else found.where(_follows(wanted.order, after))


def read(
    session: Session, wanted: ResultFilter, limit: int, after: Mark | None = None
) -> Sequence[ListedResult]:
    """Return the first results of a list, or the first ones after a row."""
    rows = session.execute(page(wanted, limit, after)).mappings()
    return [ListedResult(**row) for row in rows]


def count(session: Session, wanted: ResultFilter, limit: int) -> int:
    """Return how many results there are, or `limit` if there are more."""
    found = select(_OF_VIEW.result_id).where(*_conditions(wanted)).limit(limit)
    return session.scalar(select(func.count()).select_from(found.subquery())) or 0


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
        yield _OF_VIEW.job_id.in_(_jobs_about(wanted.words))


def _jobs_about(words: str) -> Select[object]:
    """Return the jobs whose document or whose values have these words."""
    jobs = table("jobs", column("id"), column("document_id")).alias("j")
    documents = table("documents", column("id")).alias("d")
    facts = table("facts", column("job_id")).alias("f")
    sought = func.websearch_to_tsquery(literal_column("'simple'"), words)
    in_text, in_value = (
        literal_column(words_of(name)).op("@@", is_comparison=True)(sought)
        for name in ("text", "final_value")
    )
    by_text = select(jobs.c.id).where(jobs.c.document_id == documents.c.id, in_text)
    return select(union(by_text, select(facts.c.job_id).where(in_value)).subquery("found").c.id)


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
