"""The tables of the schema `answers`: views that show facts and labels as columns with SQL types.

The views are created when a run is saved under a name, and extended when the run asks for more
columns. A view never loses a column or changes a column type automatically, so that queries built
on it keep working.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql
from psycopg.errors import DependentObjectsStillExist, InsufficientPrivilege, InvalidTableDefinition
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain import answer_tables, identifiers, json_values
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.answer_tables import AnswerColumn
from chordwise.domain.facts import DATA
from chordwise.domain.items import ColumnKind
from chordwise.domain.json_values import JsonValue, as_json
from chordwise.errors import ConfigurationError, UsageError
from chordwise.storage.clock import database_now
from chordwise.storage.record import CreatedAt, Record

SCHEMA = "answers"
EVIDENCE = "_evidence"
# PostgreSQL cuts longer names, which could then be equal.
_MAX_NAME = 63


class AnswerTable(Record):
    """A table of answers: the analysis type that produces its rows, and its columns.

    `columns` lists name, item, kind, rows, analysis_type, description and is_replaced of each
    column, in the order in which the columns were added.
    """

    __tablename__ = "answer_tables"

    name: Mapped[str] = mapped_column(primary_key=True)
    analysis_type: Mapped[str]
    columns: Mapped[JsonValue]
    created_at: Mapped[CreatedAt]
    changed_at: Mapped[datetime] = mapped_column(server_default=database_now())


def renew(session: Session, name: str, kind: AnalysisType, columns: Sequence[AnswerColumn]) -> None:
    """Create the views of a table, or add its missing columns; do nothing if none is missing.

    Raises:
        ConfigurationError: The database role may not create views in the schema.
        UsageError: Another table has a view of the same name.
    """
    table = session.get(AnswerTable, name)
    if table is not None and answer_tables.with_new_columns(
        columns_of(table), columns
    ) == columns_of(table):
        return
    session.execute(text("LOCK TABLE answer_tables IN EXCLUSIVE MODE"))
    table = session.get(AnswerTable, name, populate_existing=True)
    if table is None:
        table = AnswerTable(name=name, analysis_type=kind, columns=[])
        session.add(table)
    all_columns = answer_tables.with_new_columns(columns_of(table), columns)
    table.columns = as_json(all_columns)
    table.changed_at = database_now()
    session.flush()
    others = (other for other in gather(session) if other is not table)
    if not {view for other in others for view in view_names(other)}.isdisjoint(view_names(table)):
        raise _name_taken()
    _execute(session, *_statements(table, all_columns))


def prune(session: Session, name: str, columns: Sequence[AnswerColumn]) -> Sequence[str]:
    """Remove all columns except the wanted ones, and return the names of the removed columns.

    Raises:
        UsageError: A view of the user depends on a removed column.
    """
    table = get(session, name)
    kept = answer_tables.with_new_columns([], columns)
    dropped = {c.name for c in columns_of(table)} - {c.name for c in kept}
    views = view_names(table)
    table.columns = as_json(kept)
    session.flush()
    _execute(session, *(_drop(view) for view in reversed(views)), *_statements(table, kept))
    return sorted(dropped)


def drop(session: Session, name: str) -> None:
    """Drop the views of a table; the results that they show are kept.

    Raises:
        UsageError: The table does not exist, or views of the user depend on it.
    """
    table = get(session, name)
    _execute(session, *(_drop(view) for view in reversed(view_names(table))))
    session.delete(table)


def get(session: Session, name: str) -> AnswerTable:
    """Return a table.

    Raises:
        UsageError: No table has this name.
    """
    table = session.get(AnswerTable, name.removeprefix(f"{SCHEMA}."))
    if table is None:
        near = identifiers.nearest(name, session.scalars(select(AnswerTable.name)))
        hint = f"Similar: {near or 'none'}. `chordwise tables` lists the tables."
        raise UsageError(f"There is no table “{name}”.", hint)
    return table


def gather(session: Session) -> Sequence[AnswerTable]:
    """Return all tables, ordered by name."""
    return session.scalars(select(AnswerTable).order_by(AnswerTable.name)).all()


def columns_of(table: AnswerTable) -> list[AnswerColumn]:
    """Return the columns of a table, including those of its list views."""
    return answer_tables.from_json(table.columns)


def view_names(table: AnswerTable) -> list[str]:
    """Return the names of the views without their schema: the table, its evidence, its lists."""
    lists = list_views(table.name, columns_of(table)).values()
    return [table.name, f"{table.name}{EVIDENCE}", *lists]


def list_views(table: str, columns: Sequence[AnswerColumn]) -> dict[str, str]:
    """Return the view of each list in the columns of a table, without its schema."""
    names: dict[str, str] = {}
    for rows in dict.fromkeys(column.rows for column in columns if column.rows):
        name = f"{table}_{identifiers.sql_identifier(rows) or 'rows'}"[:_MAX_NAME]
        taken = {*names.values(), f"{table}{EVIDENCE}"}
        suffixes = (f"_{number}" for number in range(2, len(taken) + 3))
        numbered = (f"{name[: _MAX_NAME - len(suffix)]}{suffix}" for suffix in suffixes)
        names[rows] = next(candidate for candidate in (name, *numbered) if candidate not in taken)
    return names


def _execute(session: Session, *statements: sql.Composed) -> None:
    try:
        for statement in statements:
            session.execute(text(statement.as_string(None).replace(":", r"\:")))
    except DBAPIError as error:
        if isinstance(error.orig, InsufficientPrivilege):
            raise ConfigurationError(
                f"The role of the database may not change views in the schema {SCHEMA}.",
                f"An administrator can grant it: GRANT USAGE, CREATE ON SCHEMA {SCHEMA} TO …",
            ) from error
        if isinstance(error.orig, InvalidTableDefinition):
            raise _name_taken() from error
        if isinstance(error.orig, DependentObjectsStillExist):
            needed = " ".join((error.orig.diag.message_detail or "").split())
            raise UsageError("Your views depend on it.", f"Drop them first: {needed}") from error
        raise


def _name_taken() -> UsageError:
    return UsageError(
        f"There is another table of this name in the schema {SCHEMA}.",
        "Choose another --save-as. The table of a list is called TABLE_LIST.",
    )


# The statements

_GRANT = sql.SQL(
    """
    DO $do$ BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chordwise_reader') THEN
            GRANT SELECT ON {} TO chordwise_reader;
        END IF;
    END $do$
    """
)
_OF_ITEM = sql.SQL("FROM facts AS f WHERE f.job_id = n.job_id AND f.item = {item}")
_NOTHING = sql.SQL("'{}'")
_OF_ROW = sql.SQL("f.row_path IN (f.parent, f.path)")
_SUREST = sql.SQL("ORDER BY f.confidence DESC NULLS LAST, f.id LIMIT 1")
_TRUST = sql.SQL(
    "trust_of(f.value, f.verdict, f.accepted, f.doubts, f.confidence, n.accept_from, n.is_read)"
)
# A document without an answer was not read; what an answer leaves out, it does not mention.
_HAS_FAILED_STATE = sql.SQL(
    "CASE WHEN n.status IN ('failed', 'quarantined', 'cancelled') THEN 'unread'::trust END"
)
_ABSENT_STATE = sql.SQL(
    """CASE WHEN n.status IN ('failed', 'quarantined', 'cancelled') THEN 'unread'::trust
        WHEN n.output IS NOT NULL THEN CASE WHEN n.is_read THEN 'silent' ELSE 'unread' END::trust
    END"""
)
_CELLS_TO_CHECK = sql.SQL(
    """(
        SELECT count(DISTINCT (f.parent, f.item)) FROM fact_trust AS f
        WHERE f.job_id = {job}.job_id AND f.trust = 'check'
    ) + CASE WHEN {job}.trust = 'check' THEN 1 ELSE 0 END"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """The jobs that a query reads: `n` is the alias of the job of a row.

    `others` selects the jobs of the same documents for other analysis types, with the alias `o`.
    """

    jobs: sql.Composed
    others: sql.Composed


def query_of_run(run_id: uuid.UUID, kind: AnalysisType, columns: Sequence[AnswerColumn]) -> str:
    """Return the query that shows the answers of one run as the saved table would show them."""
    jobs = sql.SQL(
        r"""(
            SELECT j.run_id, j.analysis_type, j.document_id, j.id AS job_id, i.source,
                regexp_replace(i.source, '^.*[/\\](?=[^/\\])', '') AS document, run.name AS run,
                CASE WHEN r.nothing_found THEN 'nothing found' ELSE j.status END AS status,
                r.id IS NULL OR r.needs_review AS needs_review, r.confidence,
                coalesce(r.corrected_output, r.output) AS output, r.created_at AS analyzed_at,
                a.trust, a.is_read, a.accept_fields_from AS accept_from
            FROM jobs AS j INNER JOIN runs AS run ON run.id = j.run_id
            INNER JOIN intakes AS i ON i.id = j.intake_id
            LEFT JOIN results AS r ON r.job_id = j.id
            LEFT JOIN answer_trust AS a ON a.job_id = j.id
            WHERE j.run_id = {}
        )"""
    ).format(str(run_id))
    source = _Source(
        jobs=sql.SQL("{} AS n WHERE n.analysis_type = {}").format(jobs, kind),
        others=sql.SQL("{} AS o WHERE true").format(jobs),
    )
    document_columns = [column for column in columns if not column.rows]
    return _document_view(document_columns, source).as_string(None)


def _statements(table: AnswerTable, columns: Sequence[AnswerColumn]) -> Iterator[sql.Composed]:
    newest = sql.SQL("answer_jobs AS n WHERE n.saved_as = {} AND n.analysis_type = {}")
    source = _Source(
        jobs=newest.format(table.name, table.analysis_type),
        others=sql.SQL("answer_jobs AS o WHERE o.saved_as = {}").format(table.name),
    )
    document_columns = [column for column in columns if not column.rows]
    extracted = [
        column
        for column in document_columns
        if column.analysis_type == AnalysisType.EXTRACTION and column.kind is not ColumnKind.JSON
    ]
    evidence = f"{table.name}{EVIDENCE}"
    yield from _view(table.name, _document_view(document_columns, source))
    about = f"The answers saved as {table.name}, by document."
    yield _comments(table.name, about, _BY_DOCUMENT, document_columns)
    yield from _view(evidence, _evidence_view(extracted, source))
    about = f"The evidence for the values of {table.name}, by document."
    yield _comments(evidence, about, _OF_DOCUMENT, extracted, is_evidence=True)
    for rows, name in list_views(table.name, columns).items():
        below = [column for column in columns if column.rows == rows]
        yield from _view(name, _list_view(below, source))
        about = f"The elements of {rows} in {table.name}, one per row."
        yield _comments(name, about, _BY_ROW, below)


def _view(name: str, query: sql.Composed) -> Iterator[sql.Composed]:
    yield sql.SQL("CREATE OR REPLACE VIEW {} AS {}").format(_identifier(name), query)
    yield _GRANT.format(_identifier(name))


def _drop(view: str) -> sql.Composed:
    return sql.SQL("DROP VIEW IF EXISTS {}").format(_identifier(view))


_OF_DOCUMENT = {
    "document": "Name of the file, or of the row of a table after #.",
    "source": "Path of the file.",
    "run": "Run that answered (runs.name).",
    "document_id": "Document (documents.id).",
    "job_id": "Job that answered (jobs.id).",
}
_OF_ANSWER = {
    **_OF_DOCUMENT,
    "status": "State of the job, or nothing found if no item has a value.",
    "needs_check": "Number of cells that a person should look at.",
}
_BY_DOCUMENT = {
    **_OF_ANSWER,
    "needs_review": "True if there is no result, or a cell to look at.",
    "confidence": "The answer's own claim, 0 to 1.",
    "unread": "Columns with a value that does not have their type.",
    "analyzed_at": "Time of the result.",
}
_BY_ROW = {
    **_OF_ANSWER,
    "row_index": "Position in the list, from 0.",
    "parent_row": "Position of the enclosing element, if the list is inside of another one.",
    "quote": "Quote that supports the row.",
    "grounded": "True if the quotes of the row are in the document.",
    "path": "JSON Pointer of the row in the output.",
}
_OF_VALUE = {
    "trust": "State of {}: check, unread, silent, supported, certified, corrected or confirmed.",
    "currency": "Currency of {}, as in ISO 4217.",
    "value": "{} as the model wrote it.",
    "quote": "Quote for {}.",
    "page": "Page of the quote for {}.",
    "place": "Place of the quote for {}: a page, slide, section or range of cells.",
    "grounded": "True if the quote for {} is in the document.",
    "grounding": "How the quote for {} was found: exact, normalized, joined or none.",
    "confidence": "The model's claim for {}, 0 to 1.",
    "start_char": "First character of the quote for {} in the text of the document, from 0.",
    "end_char": "Character after the quote for {} in the text of the document.",
    "mentions": "How often the document has {}.",
    "verdict": "A person's verdict on {}: approved, corrected or rejected.",
}
"""The comments on the columns of the views of a table."""


def _comments(
    view: str,
    about: str,
    base: Mapping[str, str],
    columns: Sequence[AnswerColumn],
    *,
    is_evidence: bool = False,
) -> sql.Composed:
    """Return the statements that describe a view and all of its columns."""
    words = dict(base)
    for column in columns:
        if is_evidence:
            suffixes = _evidence_of_each(columns)
        else:
            words[column.name] = column.description or f"Asked for: {column.item}"
            suffixes = ("trust",) + ("currency",) * (column.kind is ColumnKind.MONEY)
        for suffix in suffixes:
            words[f"{column.name}_{suffix}"] = _OF_VALUE[suffix].format(column.name)
    said = [sql.SQL("COMMENT ON VIEW {} IS {}").format(_identifier(view), about)]
    said += [
        sql.SQL("COMMENT ON COLUMN {} IS {}").format(sql.Identifier(SCHEMA, view, name), comment)
        for name, comment in words.items()
    ]
    return sql.SQL("; ").join(said)


def _identifier(view: str) -> sql.Identifier:
    return sql.Identifier(SCHEMA, view)


def _document_view(columns: Sequence[AnswerColumn], source: _Source) -> sql.Composed:
    shown = [expression for column in columns for expression in _select_columns(column, source)]
    return sql.SQL(
        """
        SELECT n.document, n.source, n.status, n.needs_review, {to_check} AS needs_check,
            n.confidence, {unread} AS unread, n.run, n.analyzed_at, n.document_id, n.job_id{shown}
        FROM {jobs}
        """
    ).format(
        to_check=_needs_check(columns, source),
        unread=_unread(columns),
        shown=_listed(shown),
        jobs=source.jobs,
    )


def _needs_check(columns: Sequence[AnswerColumn], source: _Source) -> sql.Composed:
    """Return the expression that counts the cells to check of a document, in all of its answers."""
    count = _CELLS_TO_CHECK.format(job=sql.SQL("n"))
    if len({column.analysis_type for column in columns}) < 2:  # noqa: PLR2004 - a second type
        return count
    others = sql.SQL(
        "{count} + coalesce((SELECT sum({cells}) FROM {others} AND o.document_id = n.document_id"
        " AND o.analysis_type <> n.analysis_type), 0)::bigint"
    )
    cells = _CELLS_TO_CHECK.format(job=sql.SQL("o"))
    return others.format(count=count, cells=cells, others=source.others)


def _select_columns(column: AnswerColumn, source: _Source) -> Iterator[sql.Composed]:
    if column.kind in (ColumnKind.LABEL, ColumnKind.SCORE):
        yield _named(_of_output(column, source), column.name)
    elif column.kind is ColumnKind.JSON:
        yield _named(_json_at(column, sql.SQL("'{data}'::text[]")), column.name)
    elif column.kind.is_list:
        listed = sql.SQL("NULLIF(ARRAY(SELECT {value} {rows} ORDER BY f.id), {no})")
        _, exists = _value(column)
        values = _formatted(listed, column, no=_NOTHING, rows=_distinct(column, exists))
        yield _named(values, column.name)
    else:
        value = _formatted(sql.SQL("(SELECT {value} {of_item} AND {exists} {surest})"), column)
        yield _named(value, column.name)
        if column.kind is ColumnKind.MONEY:
            code = sql.SQL("(SELECT f.currency {of_item} AND f.number IS NOT NULL {surest})")
            yield _named(_formatted(code, column), f"{column.name}_currency")
    is_of_other = column.kind in (ColumnKind.LABEL, ColumnKind.SCORE)
    state = sql.SQL("coalesce({}, {})")
    absent = _HAS_FAILED_STATE if is_of_other else _ABSENT_STATE
    yield _named(state.format(_trust(column, source), absent), f"{column.name}_trust")


def _trust(column: AnswerColumn, source: _Source) -> sql.Composed:
    """Return the state of a cell: the first of those of its values."""
    if column.kind in (ColumnKind.LABEL, ColumnKind.SCORE):
        label = sql.SQL("SELECT min(f.trust) FROM fact_trust AS f WHERE f.job_id = o.job_id")
        return _of_other(sql.SQL("coalesce(({}), o.trust)").format(label), column, source)
    if column.kind is ColumnKind.JSON:
        below = sql.SQL(
            "(SELECT min({trust}) FROM facts AS f WHERE f.job_id = n.job_id"
            " AND starts_with(f.path || '/', {path}))"
        )
        return below.format(trust=_TRUST, path=f"{DATA.path}{column.item}/")
    of_values = _formatted(sql.SQL("(SELECT min({trust}) {of_item})"), column, trust=_TRUST)
    if not column.kind.is_list:
        return of_values
    incomplete = sql.SQL("least({}, CASE WHEN NOT n.is_read THEN 'unread'::trust END)")
    return incomplete.format(of_values)


def _json_at(column: AnswerColumn, place: sql.Composable) -> sql.Composed:
    steps = sql.SQL(", ").join(map(sql.Literal, json_values.steps(column.item)))
    return sql.SQL("n.output #> ({} || ARRAY[{}]::text[])").format(place, steps)


_FIELDS = {
    ColumnKind.NUMBER: "number",
    ColumnKind.MONEY: "number",
    ColumnKind.NUMBERS: "number",
    ColumnKind.DATE: "date",
    ColumnKind.DATES: "date",
}
"""The column of `facts` that a kind of column shows, if it is not the text."""
_ONE_LINE = sql.SQL("regexp_replace(f.final_value, '[[:space:]]+', ' ', 'g')")


def _distinct(column: AnswerColumn, exists: sql.Composable) -> sql.Composed:
    """Return the clause with the facts of a list, those of the same text or date once.

    Numbers that are equal may be different values.
    """
    keys = {
        ColumnKind.TEXTS: sql.SQL("coalesce(lower({}), f.id::text)"),
        ColumnKind.DATES: sql.SQL("coalesce(f.date::text, lower({}), f.id::text)"),
    }
    return sql.SQL(
        """
        FROM (
            SELECT DISTINCT ON (key) f.*, sum(f.mentions) OVER (PARTITION BY key) AS all_mentions
            FROM (SELECT f.*, {key} AS key {of_item} AND {exists}) AS f ORDER BY key, f.id
        ) AS f
        """
    ).format(
        key=keys.get(column.kind, sql.SQL("f.id")).format(_ONE_LINE),
        of_item=_OF_ITEM.format(item=column.item),
        exists=exists,
    )


def _formatted(template: sql.SQL, column: AnswerColumn, **further: sql.Composable) -> sql.Composed:
    value, exists = _value(column)
    return template.format(
        value=value,
        exists=exists,
        of_item=_OF_ITEM.format(item=column.item),
        surest=_SUREST,
        **further,
    )


def _value(column: AnswerColumn) -> tuple[sql.Composable, sql.Composable]:
    if column.kind is ColumnKind.BOOLEAN:
        is_one_of = "lower(f.final_value) IN ({})"
        return (
            sql.SQL(is_one_of.format("'true', 'yes'")),
            sql.SQL(is_one_of.format("'true', 'false', 'yes', 'no'")),
        )
    field = sql.SQL("f.{}").format(sql.Identifier(_FIELDS.get(column.kind, "final_value")))
    exists = sql.SQL("{} IS NOT NULL").format(field)
    return (field if column.kind in _FIELDS else _ONE_LINE), exists


def _of_output(column: AnswerColumn, source: _Source) -> sql.Composed:
    value = "({})::numeric" if column.kind is ColumnKind.SCORE else "{}"
    output = sql.SQL(value).format(sql.SQL("o.output ->> {}").format(column.item))
    return _of_other(output, column, source)


def _of_other(expression: sql.Composable, column: AnswerColumn, source: _Source) -> sql.Composed:
    """Return an expression about the job of the analysis type of a column."""
    return sql.SQL(
        "(SELECT {} FROM {} AND o.analysis_type = {} AND o.document_id = n.document_id LIMIT 1)"
    ).format(expression, source.others, column.analysis_type)


def _unread(columns: Sequence[AnswerColumn]) -> sql.Composed:
    """Return the expression that names the columns whose found value is not of their type."""
    unlike = sql.SQL("EXISTS (SELECT {of_item} AND f.final_value IS NOT NULL AND NOT {exists})")
    names = [
        sql.SQL("CASE WHEN {} THEN {} END").format(_formatted(unlike, column), column.name)
        for column in columns
        if (column.kind in _FIELDS or column.kind is ColumnKind.BOOLEAN) and not column.is_replaced
    ]
    array = sql.SQL("ARRAY[{}]::text[]").format(sql.SQL(", ").join(names))
    return sql.SQL("NULLIF(array_remove({}, NULL), {})").format(array, _NOTHING)


OF_WIDE_EVIDENCE = ("value", "quote", "grounded")
"""The evidence columns in a wide table; a view has at most 1,664 columns."""
_MAX_WHOLE_EVIDENCE = 150
OF_EVIDENCE = (
    *("value", "quote", "page", "place", "grounded", "grounding"),
    *("confidence", "start_char", "end_char", "verdict", "mentions"),
)
"""The suffixes of the evidence columns of each column, as in `governing_law_quote`."""


def _evidence_of_each(columns: Sequence[AnswerColumn]) -> Sequence[str]:
    return OF_EVIDENCE if len(columns) <= _MAX_WHOLE_EVIDENCE else OF_WIDE_EVIDENCE


def _evidence_view(columns: Sequence[AnswerColumn], source: _Source) -> sql.Composed:
    shown: list[sql.Composed] = []
    joined: list[sql.Composed] = []
    names = _evidence_of_each(columns)
    for number, column in enumerate(columns, start=1):
        alias = sql.Identifier(f"f{number}")
        shown += [
            _named(sql.SQL("{}.{}").format(alias, sql.Identifier(name)), f"{column.name}_{name}")
            for name in names
        ]
        joined.append(_evidence_of(column, names, alias))
    return sql.SQL(
        """
        SELECT n.document, n.source, n.run, n.document_id, n.job_id{shown}
        FROM (SELECT n.* FROM {jobs}) AS n {joined}
        """
    ).format(shown=_listed(shown), joined=sql.SQL(" ").join(joined), jobs=source.jobs)


def _evidence_of(column: AnswerColumn, names: Sequence[str], alias: sql.Identifier) -> sql.Composed:
    every = sql.SQL("array_agg(f.{of} ORDER BY f.id) AS {name}")
    field = every if column.kind.is_list else sql.SQL("f.{name}")
    of = {"mentions": "all_mentions"}
    fields = sql.SQL(", ").join(
        field.format(name=sql.Identifier(name), of=sql.Identifier(of.get(name, name)))
        for name in names
    )
    if column.kind.is_list:
        picked = sql.SQL("{} {}").format(fields, _distinct(column, sql.SQL("f.value IS NOT NULL")))
    else:
        surest = sql.SQL(
            "{fields} {of_item} ORDER BY NOT {exists}, f.confidence DESC NULLS LAST, f.id LIMIT 1"
        )
        picked = _formatted(surest, column, fields=fields)
    return sql.SQL("LEFT JOIN LATERAL (SELECT {}) AS {} ON true").format(picked, alias)


def _list_view(columns: Sequence[AnswerColumn], source: _Source) -> sql.Composed:
    """Return the query with one row for each object in a list; rejected objects are left out.

    A row exists for each list element that contains a fact: an empty object is one as well.
    """
    steps = sql.SQL("string_to_array(substr(r.path, 2), '/')")
    shown: list[sql.Composed] = []
    cells: list[sql.Composed] = []
    for column in columns:
        trust, name = f"{column.name}_trust", sql.Identifier("r", column.name)
        is_json = column.kind is ColumnKind.JSON
        shown.append(_named(_json_at(column, steps) if is_json else name, column.name))
        absent = sql.SQL("coalesce({}, {})").format(sql.Identifier("r", trust), _ABSENT_STATE)
        shown.append(_named(absent, trust))
        if is_json:
            is_in = "starts_with(f.path || '/', f.row_path || {} || '/')"
        else:
            is_in = "f.item = {}"
            cells.append(_named(_cell(column), column.name))
        state = sql.SQL(f"min({{}}) FILTER (WHERE {is_in})")
        cells.append(_named(state.format(_TRUST, column.item), trust))
    row = _row_of_fact(columns)
    return sql.SQL(
        """
        SELECT n.document, n.source, n.status, r.needs_check, r.row_index, r.parent_row, r.quote,
            r.grounded, n.run, n.document_id, n.job_id, r.path{shown}
        FROM (SELECT n.* FROM {jobs}) AS n CROSS JOIN LATERAL (
            SELECT f.row_path AS path, substring(f.row_path FROM '[0-9]+$')::integer AS row_index,
                substring(f.row_path FROM '/([0-9]+)/[^/]+/[0-9]+$')::integer AS parent_row,
                min(f.quote) FILTER (WHERE {of_row}) AS quote,
                bool_and(f.grounded) FILTER (WHERE {of_row}) AS grounded,
                count(DISTINCT f.item) FILTER (WHERE {trust} = 'check') AS needs_check{cells}
            FROM (
                SELECT f.*, {row} AS row_path FROM facts AS f WHERE f.job_id = n.job_id OFFSET 0
            ) AS f
            WHERE f.row_path IS NOT NULL
            GROUP BY f.row_path
            HAVING count(*) FILTER (WHERE f.verdict IS DISTINCT FROM 'rejected') > 0
        ) AS r
        """
    ).format(
        shown=_listed(shown),
        cells=_listed(cells),
        of_row=_OF_ROW,
        row=row,
        jobs=source.jobs,
        trust=_TRUST,
    )


def _row_of_fact(columns: Sequence[AnswerColumn]) -> sql.Composed:
    """Return the expression for the path of the list element that contains a fact.

    That of a column has the parent path. Others are slower to match: a name may contain a dot.
    """
    names = [re.escape(json_values.pointer("", n)[1:]) for n in columns[0].rows.split(".")]
    pattern = f"^/data/{'(?:/[0-9]+)?[./]'.join(names)}/[0-9]+"
    items = [column.item for column in columns if column.kind is not ColumnKind.JSON]
    return sql.SQL(
        "CASE WHEN f.item = ANY({}) THEN f.parent ELSE substring(f.path FROM {}) END"
    ).format(items, pattern)


def _cell(column: AnswerColumn) -> sql.Composed:
    """Return the value of a column in a row: an item has one fact in a row, or a list of facts."""
    value, exists = _value(column)
    if column.kind.is_list:
        aggregate = sql.SQL("array_agg({} ORDER BY f.id)")
    elif column.kind is ColumnKind.BOOLEAN:
        aggregate = sql.SQL("bool_or({})")
    else:
        aggregate = sql.SQL("max({})")
    return sql.SQL("{} FILTER (WHERE f.item = {} AND {})").format(
        aggregate.format(value), column.item, exists
    )


def _named(expression: sql.Composable, name: str) -> sql.Composed:
    return sql.SQL("{} AS {}").format(expression, sql.Identifier(name))


def _listed(expressions: Sequence[sql.Composed]) -> sql.Composed:
    return sql.SQL("").join(sql.SQL(", {}").format(expression) for expression in expressions)
