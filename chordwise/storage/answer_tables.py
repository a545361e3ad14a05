"""The tables of the schema `answers`: views that show facts and labels as columns with SQL types.

The views are created when a run is saved under a name, and extended when the run asks for more
columns. A view never loses a column or changes a column type automatically, so that queries built
on it keep working.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

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
from chordwise.storage.sql_text import quoted_name, quoted_value

SCHEMA = "answers"
EVIDENCE = "_evidence"
EFFECTIVE = "_effective"
# PostgreSQL cuts longer names, which could then be equal.
_MAX_NAME = 63


class AnswerTable(Record):
    """A table of answers: the analysis type that produces its rows, and its columns.

    `family` is the item that links documents of which later ones replace values of earlier ones.
    """

    __tablename__ = "answer_tables"

    name: Mapped[str] = mapped_column(primary_key=True)
    analysis_type: Mapped[str]
    columns: Mapped[JsonValue]
    family: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[CreatedAt]
    changed_at: Mapped[datetime] = mapped_column(server_default=database_now())


def renew(
    session: Session,
    name: str,
    kind: AnalysisType,
    columns: Sequence[AnswerColumn],
    family: str = "",
) -> None:
    """Create the views of a table, or add its missing columns; do nothing if none is missing.

    Without a `family`, the table keeps the one it has.

    Raises:
        ConfigurationError: The database role may not create views in the schema.
        UsageError: Another table has a view of the same name.
    """
    table = session.get(AnswerTable, name)
    if (
        table is not None
        and family in ("", table.family)
        and answer_tables.with_new_columns(columns_of(table), columns) == columns_of(table)
    ):
        return
    session.execute(text("LOCK TABLE answer_tables IN EXCLUSIVE MODE"))
    table = session.get(AnswerTable, name, populate_existing=True)
    if table is None:
        table = AnswerTable(name=name, analysis_type=kind, columns=[], family="")
        session.add(table)
    all_columns = answer_tables.with_new_columns(columns_of(table), columns)
    table.columns = as_json(all_columns)
    table.family = family or table.family
    table.changed_at = database_now()
    session.flush()
    others = (other for other in gather(session) if other is not table)
    if not {view for other in others for view in view_names(other)}.isdisjoint(view_names(table)):
        raise _name_taken()
    _execute(session, *_statements(table, all_columns))


def prune(
    session: Session, name: str, columns: Sequence[AnswerColumn], family: str
) -> Sequence[str]:
    """Remove all columns except these, set the family, and return the names of removed columns.

    Raises:
        UsageError: A view of the user depends on a removed column.
    """
    table = get(session, name)
    kept = answer_tables.with_new_columns([], columns)
    items = {(column.rows, column.item) for column in kept}
    kept += [c for c in columns_of(table) if c.grouped and (c.rows, c.item) in items]
    dropped = {c.name for c in columns_of(table)} - {c.name for c in kept}
    views = view_names(table)
    table.columns, table.family = as_json(kept), family
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
        hint = f"Similar: {near}. `chordwise tables` lists the tables."
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
    columns = columns_of(table)
    lists = list_views(table.name, columns).values()
    effective = [f"{table.name}{EFFECTIVE}"] * bool(table.family)
    evidence = f"{table.name}{EVIDENCE}"
    return [table.name, evidence, *effective, *lists, *entity_views(columns).values()]


def list_views(table: str, columns: Sequence[AnswerColumn]) -> dict[str, str]:
    """Return the view of each list in the columns of a table, without its schema."""
    names: dict[str, str] = {}
    for rows in dict.fromkeys(column.rows for column in columns if column.rows):
        name = f"{table}_{identifiers.sql_identifier(rows) or 'rows'}"[:_MAX_NAME]
        taken = {*names.values(), f"{table}{EVIDENCE}", f"{table}{EFFECTIVE}"}
        suffixes = (f"_{number}" for number in range(2, len(taken) + 3))
        numbered = (f"{name[: _MAX_NAME - len(suffix)]}{suffix}" for suffix in suffixes)
        names[rows] = next(candidate for candidate in (name, *numbered) if candidate not in taken)
    return names


def entity_views(columns: Sequence[AnswerColumn]) -> dict[str, str]:
    """Return the view of the entities of each grouped column, without its schema."""
    return {
        column.grouped: column.grouped.replace(".", "_")[:_MAX_NAME]
        for column in columns
        if column.grouped
    }


def add_entities(session: Session, table: AnswerTable, column: AnswerColumn) -> None:
    """Add a column of entities to a table, with its view, or replace the kind of the entities.

    Raises:
        ConfigurationError: The database role may not create views in the schema.
        UsageError: Another view has the name.
    """
    columns = [other for other in columns_of(table) if other.grouped != column.grouped]
    if len(columns) < len(columns_of(table)):
        kept = [column if c.grouped == column.grouped else c for c in columns_of(table)]
        table.columns = as_json(kept)
        return
    renew(session, table.name, AnalysisType(table.analysis_type), [*columns, column])


def _execute(session: Session, *statements: str) -> None:
    try:
        for statement in statements:
            session.execute(text(statement.replace(":", r"\:")))
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

_SUREST = "ORDER BY f.confidence DESC NULLS LAST, f.id LIMIT 1"
_TRUST = (
    "trust_of(f.value, f.verdict, f.accepted, f.doubts, f.confidence, n.accept_from, n.is_read)"
)
# A document without an answer was not read; what an answer leaves out, it does not mention.
_HAS_FAILED_STATE = (
    "CASE WHEN n.status IN ('failed', 'quarantined', 'cancelled') THEN 'unread'::trust END"
)
_ABSENT_STATE = """CASE WHEN n.status IN ('failed', 'quarantined', 'cancelled') THEN 'unread'::trust
        WHEN n.output IS NOT NULL THEN CASE WHEN n.is_read THEN 'silent' ELSE 'unread' END::trust
    END"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """The jobs that a query reads: `n` is the alias of the job of a row.

    `others` selects the jobs of the same documents for other analysis types, with the alias `o`.
    """

    jobs: str
    others: str


def query_of_run(run_id: uuid.UUID, kind: AnalysisType, columns: Sequence[AnswerColumn]) -> str:
    """Return the query that shows the answers of one run as the saved table would show them."""
    jobs = rf"""(
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
            WHERE j.run_id = {quoted_value(str(run_id))}
        )"""
    source = _Source(
        jobs=f"{jobs} AS n WHERE n.analysis_type = {quoted_value(kind)}",
        others=f"{jobs} AS o WHERE true",
    )
    return _document_view([column for column in columns if not column.rows], source)


def _statements(table: AnswerTable, columns: Sequence[AnswerColumn]) -> Iterator[str]:
    name, kind = quoted_value(table.name), quoted_value(table.analysis_type)
    source = _Source(
        jobs=f"answer_jobs AS n WHERE n.saved_as = {name} AND n.analysis_type = {kind}",
        others=f"answer_jobs AS o WHERE o.saved_as = {name}",
    )
    document_columns = [column for column in columns if not column.rows]
    about = f"The answers saved as {table.name}, by document."
    query = _document_view(document_columns, source)
    yield from _view(table.name, query, about, _BY_DOCUMENT | _words(document_columns))
    extracted = [
        column
        for column in document_columns
        if column.analysis_type == AnalysisType.EXTRACTION
        and column.kind is not ColumnKind.JSON
        and not column.grouped
    ]
    about = f"The evidence for the values of {table.name}, by document."
    suffixes = OF_EVIDENCE if len(extracted) <= _MAX_WHOLE_EVIDENCE else OF_WIDE_EVIDENCE
    words = _OF_DOCUMENT | {
        f"{column.name}_{suffix}": _OF_VALUE[suffix].format(column.name)
        for column in extracted
        for suffix in suffixes
    }
    query = _evidence_view(extracted, suffixes, source)
    yield from _view(f"{table.name}{EVIDENCE}", query, about, words)
    for rows, view in list_views(table.name, columns).items():
        below = [column for column in columns if column.rows == rows]
        about = f"The elements of {rows} in {table.name}, one per row."
        yield from _view(view, _list_view(below, source), about, _BY_ROW | _words(below))
    if table.family:
        about = f"The values of {table.name} in force, and those that later documents replaced."
        query = _effective_view(table, columns, source)
        yield from _view(f"{table.name}{EFFECTIVE}", query, about, _BY_TERM)
    for column in columns:
        if column.grouped:
            view = entity_views([column])[column.grouped]
            about = f"The values of {column.grouped}, and the entities that they name."
            yield from _view(view, _entity_view(column, source), about, _BY_VALUE)


def _view(name: str, query: str, about: str, words: Mapping[str, str]) -> Iterator[str]:
    """Yield the statements that create a view, grant it to readers, and describe its columns."""
    view = quoted_name(SCHEMA, name)
    # The policies of the reader apply, not those of the owner of the view.
    yield f"CREATE OR REPLACE VIEW {view} WITH (security_invoker = true) AS {query}"
    yield f"""
    DO $do$ BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'chordwise_reader') THEN
            GRANT SELECT ON {view} TO chordwise_reader;
        END IF;
    END $do$
    """
    comments = [f"COMMENT ON VIEW {view} IS {quoted_value(about)}"]
    comments += [
        f"COMMENT ON COLUMN {view}.{quoted_name(column)} IS {quoted_value(comment)}"
        for column, comment in words.items()
    ]
    yield "; ".join(comments)


def _drop(view: str) -> str:
    return f"DROP VIEW IF EXISTS {quoted_name(SCHEMA, view)}"


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
_BY_VALUE = {
    **_OF_DOCUMENT,
    "value": "Value of the column.",
    "entity": "Usual name of what the value names; the value itself until it was grouped.",
    "entity_id": "Identity of the entity; null until the value was grouped.",
    "joined_by": "Rule by which the value joined the entity; empty for its first value.",
    "trust": "State of the value: check, supported, certified, corrected or confirmed.",
    "quote": "Quote for the value.",
}
_BY_TERM = {
    **_OF_DOCUMENT,
    "family": "Value that the documents of the family share; null if the document has none.",
    "item": "Item of the value.",
    "value": "Value of the item; several of a list follow each other.",
    "valid_from": "Date of the document; null if it has none.",
    "valid_until": "Date of the document that replaces the value; null if it is in force.",
    "replaced_by": "Name of that document.",
    "doubt": "Why the order of the documents is uncertain: no date, same date, or to check.",
    "trust": "State of the value: check, supported, certified, corrected or confirmed.",
    "quote": "Quote for the value.",
    "place": "Place of the quote.",
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


def _words(columns: Sequence[AnswerColumn]) -> dict[str, str]:
    """Return the comments on columns, and on those that stand beside each of them."""
    words: dict[str, str] = {}
    for column in columns:
        words[column.name] = column.description or f"Asked for: {column.item}"
        for suffix in ("trust",) + ("currency",) * (column.kind is ColumnKind.MONEY):
            words[f"{column.name}_{suffix}"] = _OF_VALUE[suffix].format(column.name)
    return words


def _document_view(columns: Sequence[AnswerColumn], source: _Source) -> str:
    shown = [pair for column in columns for pair in _select_columns(column, source)]
    to_check = _cells_to_check("n")
    if len({column.analysis_type for column in columns}) > 1:
        to_check += f""" + coalesce((
            SELECT sum({_cells_to_check("o")}) FROM {source.others}
                AND o.document_id = n.document_id AND o.analysis_type <> n.analysis_type
        ), 0)::bigint"""
    return f"""
        SELECT n.document, n.source, n.status, n.needs_review, {to_check} AS needs_check,
            n.confidence, {_unread(columns)} AS unread, n.run, n.analyzed_at, n.document_id,
            n.job_id{_listed(shown)}
        FROM {source.jobs}
        """


def _cells_to_check(job: str) -> str:
    """Return the expression that counts the cells to check of the job with an alias."""
    return f"""(
        SELECT count(DISTINCT (f.parent, f.item)) FROM fact_trust AS f
        WHERE f.job_id = {job}.job_id AND f.trust = 'check'
    ) + CASE WHEN {job}.trust = 'check' THEN 1 ELSE 0 END"""


def _select_columns(column: AnswerColumn, source: _Source) -> Iterator[tuple[str, str]]:
    value, exists = _value(column)
    absent = _ABSENT_STATE
    if column.kind in (ColumnKind.LABEL, ColumnKind.SCORE):
        output = f"o.output ->> {quoted_value(column.item)}"
        cast = f"({output})::numeric" if column.kind is ColumnKind.SCORE else output
        yield column.name, _of_other(cast, column, source)
        absent = _HAS_FAILED_STATE
    elif column.kind is ColumnKind.JSON:
        yield column.name, _json_at(column, "'{data}'::text[]")
    elif column.kind.is_list:
        rows = f"{_distinct(column, exists)} ORDER BY f.id"
        yield column.name, f"NULLIF(ARRAY(SELECT {value} {rows}), '{{}}')"
    else:
        of_item = _of_item(column)
        yield column.name, f"(SELECT {value} {of_item} AND {exists} {_SUREST})"
        if column.kind is ColumnKind.MONEY:
            currency = f"(SELECT f.currency {of_item} AND f.number IS NOT NULL {_SUREST})"
            yield f"{column.name}_currency", currency
    yield f"{column.name}_trust", f"coalesce({_trust(column, source)}, {absent})"


def _trust(column: AnswerColumn, source: _Source) -> str:
    """Return the state of a cell: the first of those of its values."""
    if column.kind in (ColumnKind.LABEL, ColumnKind.SCORE):
        label = "SELECT min(f.trust) FROM fact_trust AS f WHERE f.job_id = o.job_id"
        return _of_other(f"coalesce(({label}), o.trust)", column, source)
    if column.kind is ColumnKind.JSON:
        path = quoted_value(f"{DATA.path}{column.item}/")
        return f"""(SELECT min({_TRUST}) FROM facts AS f WHERE f.job_id = n.job_id
            AND starts_with(f.path || '/', {path}))"""
    of_values = f"(SELECT min({_TRUST}) {_of_item(column)})"
    if not column.kind.is_list:
        return of_values
    return f"least({of_values}, CASE WHEN NOT n.is_read THEN 'unread'::trust END)"


def _json_at(column: AnswerColumn, place: str) -> str:
    steps = ", ".join(map(quoted_value, json_values.steps(column.item)))
    return f"n.output #> ({place} || ARRAY[{steps}]::text[])"


_FIELDS = {
    ColumnKind.NUMBER: "number",
    ColumnKind.MONEY: "number",
    ColumnKind.NUMBERS: "number",
    ColumnKind.DATE: "date",
    ColumnKind.DATES: "date",
}
"""The column of `facts` that a kind of column shows, if it is not the text."""
_ONE_LINE = "regexp_replace(f.final_value, '[[:space:]]+', ' ', 'g')"


def _of_item(column: AnswerColumn) -> str:
    return f"FROM facts AS f WHERE f.job_id = n.job_id AND f.item = {quoted_value(column.item)}"


def _distinct(column: AnswerColumn, exists: str) -> str:
    """Return the clause with the facts of a list, those of the same text or date once.

    Numbers that are equal may be different values.
    """
    keys = {
        ColumnKind.TEXTS: f"coalesce(lower({_ONE_LINE}), f.id::text)",
        ColumnKind.DATES: f"coalesce(f.date::text, lower({_ONE_LINE}), f.id::text)",
    }
    key = _value(column)[0] if column.grouped else keys.get(column.kind, "f.id")
    return f"""
        FROM (
            SELECT DISTINCT ON (key) f.*, sum(f.mentions) OVER (PARTITION BY key) AS all_mentions
            FROM (SELECT f.*, {key} AS key {_of_item(column)} AND {exists}) AS f
            ORDER BY key, f.id
        ) AS f
        """


def _value(column: AnswerColumn) -> tuple[str, str]:
    """Return the value of a fact in a column, and the condition that it has one."""
    if column.kind is ColumnKind.BOOLEAN:
        text = "lower(f.final_value)"
        return f"{text} IN ('true', 'yes')", f"{text} IN ('true', 'false', 'yes', 'no')"
    if column.grouped:
        entity = f"""coalesce((
        SELECT e.entity FROM entity_values AS e
        WHERE e.column_name = {quoted_value(column.grouped)} AND e.value = {_ONE_LINE}
    ), {_ONE_LINE})"""
        return entity, "f.final_value IS NOT NULL"
    if column.kind in _FIELDS:
        field = f"f.{_FIELDS[column.kind]}"
        return field, f"{field} IS NOT NULL"
    return _ONE_LINE, "f.final_value IS NOT NULL"


def _of_other(expression: str, column: AnswerColumn, source: _Source) -> str:
    """Return an expression about the job of the analysis type of a column."""
    return f"""(SELECT {expression} FROM {source.others}
        AND o.analysis_type = {quoted_value(column.analysis_type)}
        AND o.document_id = n.document_id LIMIT 1)"""


def _unread(columns: Sequence[AnswerColumn]) -> str:
    """Return the expression that names the columns whose found value is not of their type."""
    names = [
        f"""CASE WHEN EXISTS (
            SELECT {_of_item(column)} AND f.final_value IS NOT NULL AND NOT {_value(column)[1]}
        ) THEN {quoted_value(column.name)} END"""
        for column in columns
        if (column.kind in _FIELDS or column.kind is ColumnKind.BOOLEAN) and not column.is_replaced
    ]
    return f"NULLIF(array_remove(ARRAY[{', '.join(names)}]::text[], NULL), '{{}}')"


OF_WIDE_EVIDENCE = ("value", "quote", "grounded")
"""The evidence columns in a wide table; a view has at most 1,600 columns."""
_MAX_WHOLE_EVIDENCE = 145
OF_EVIDENCE = (
    *("value", "quote", "page", "place", "grounded", "grounding"),
    *("confidence", "start_char", "end_char", "verdict", "mentions"),
)
"""The suffixes of the evidence columns of each column, as in `governing_law_quote`."""


def _evidence_view(
    columns: Sequence[AnswerColumn], suffixes: Sequence[str], source: _Source
) -> str:
    shown = [
        (f"{column.name}_{suffix}", f"f{number}.{suffix}")
        for number, column in enumerate(columns, start=1)
        for suffix in suffixes
    ]
    joined = [
        f"LEFT JOIN LATERAL (SELECT {_evidence_of(column, suffixes)}) AS f{number} ON true"
        for number, column in enumerate(columns, start=1)
    ]
    return f"""
        SELECT n.document, n.source, n.run, n.document_id, n.job_id{_listed(shown)}
        FROM (SELECT n.* FROM {source.jobs}) AS n {" ".join(joined)}
        """


def _evidence_of(column: AnswerColumn, suffixes: Sequence[str]) -> str:
    if column.kind.is_list:
        of = {"mentions": "all_mentions"}
        fields = ", ".join(
            f"array_agg(f.{of.get(suffix, suffix)} ORDER BY f.id) AS {suffix}"
            for suffix in suffixes
        )
        return f"{fields} {_distinct(column, 'f.value IS NOT NULL')}"
    fields = ", ".join(f"f.{suffix}" for suffix in suffixes)
    order = f"NOT {_value(column)[1]}, f.confidence DESC NULLS LAST, f.id"
    return f"{fields} {_of_item(column)} ORDER BY {order} LIMIT 1"


def _list_view(columns: Sequence[AnswerColumn], source: _Source) -> str:
    """Return the query with one row for each object in a list; rejected objects are left out.

    A row exists for each list element that contains a fact: an empty object is one as well.
    """
    shown: list[tuple[str, str]] = []
    cells: list[tuple[str, str]] = []
    for column in columns:
        trust, item = f"{column.name}_trust", quoted_value(column.item)
        if column.kind is ColumnKind.JSON:
            steps = "string_to_array(substr(r.path, 2), '/')"
            shown.append((column.name, _json_at(column, steps)))
            is_in = f"starts_with(f.path || '/', f.row_path || {item} || '/')"
        else:
            shown.append((column.name, quoted_name("r", column.name)))
            is_in = f"f.item = {item}"
            cells.append((column.name, _cell(column)))
        shown.append((trust, f"coalesce({quoted_name('r', trust)}, {_ABSENT_STATE})"))
        cells.append((trust, f"min({_TRUST}) FILTER (WHERE {is_in})"))
    of_row = "f.row_path IN (f.parent, f.path)"
    return f"""
        SELECT n.document, n.source, n.status, r.needs_check, r.row_index, r.parent_row, r.quote,
            r.grounded, n.run, n.document_id, n.job_id, r.path{_listed(shown)}
        FROM (SELECT n.* FROM {source.jobs}) AS n CROSS JOIN LATERAL (
            SELECT f.row_path AS path, substring(f.row_path FROM '[0-9]+$')::integer AS row_index,
                substring(f.row_path FROM '/([0-9]+)/[^/]+/[0-9]+$')::integer AS parent_row,
                min(f.quote) FILTER (WHERE {of_row}) AS quote,
                bool_and(f.grounded) FILTER (WHERE {of_row}) AS grounded,
                count(DISTINCT f.item) FILTER (WHERE {_TRUST} = 'check')
                    AS needs_check{_listed(cells)}
            FROM (
                SELECT f.*, {_row_of_fact(columns)} AS row_path
                FROM facts AS f WHERE f.job_id = n.job_id OFFSET 0
            ) AS f
            WHERE f.row_path IS NOT NULL
            GROUP BY f.row_path
            HAVING count(*) FILTER (WHERE f.verdict IS DISTINCT FROM 'rejected') > 0
        ) AS r
        """


def _entity_view(column: AnswerColumn, source: _Source) -> str:
    """Return the query with a row for each value of a grouped column."""
    exists = "f.final_value IS NOT NULL"
    of_item = f"{_of_item(column)} AND {exists}"
    if not column.rows and column.kind is ColumnKind.ENTITIES:
        of_item = _distinct(replace(column, kind=ColumnKind.TEXTS, grouped=""), exists)
    surest = "" if column.rows or column.kind.is_list else _SUREST
    return f"""
        SELECT n.document, n.source, n.run, n.document_id, n.job_id, f.value,
            coalesce(e.entity, f.value) AS entity, e.entity_id, e.joined_by, f.trust, f.quote
        FROM (SELECT n.* FROM {source.jobs}) AS n
        CROSS JOIN LATERAL (
            SELECT {_ONE_LINE} AS value, {_TRUST} AS trust, f.quote
            {of_item} {surest}
        ) AS f
        LEFT JOIN entity_values AS e
            ON e.column_name = {quoted_value(column.grouped)} AND e.value = f.value
        """


def _effective_view(table: AnswerTable, columns: Sequence[AnswerColumn], source: _Source) -> str:
    """Return the query with a row for each item of each document, and until when it is in force.

    Documents are of one family if their keys are one entity, or the same letters and digits.
    """
    key, date = answer_tables.family_of(table.family, columns)
    column_name = quoted_value(f"{table.name}.{key.name}")
    items = quoted_value(
        [
            column.item
            for column in columns
            if not column.rows
            and not column.grouped
            and column.analysis_type == AnalysisType.EXTRACTION
            and column.kind is not ColumnKind.JSON
            and column.item != key.item
        ]
    )
    surest = "ORDER BY f.confidence DESC NULLS LAST, f.id"
    return f"""
        SELECT first_value(v.family) OVER (PARTITION BY v.link ORDER BY v.valid_from, v.document_id)
                AS family, v.item, v.value, v.valid_from,
            lead(v.valid_from) OVER later AS valid_until,
            lead(v.document) OVER later AS replaced_by,
            CASE
                WHEN count(*) OVER same_item = 1 THEN NULL
                WHEN bool_or(v.valid_from IS NULL) OVER same_item THEN 'no date'
                WHEN count(*) OVER same_date > 1 THEN 'same date'
                WHEN v.link_trust = 'check' THEN 'to check'
            END AS doubt,
            v.trust, v.quote, v.place, v.document, v.source, v.run, v.document_id, v.job_id
        FROM (
            SELECT n.document, n.source, n.run, n.document_id, n.job_id,
                coalesce(e.entity, k.family) AS family, d.valid_from,
                coalesce(
                    e.entity_id::text,
                    NULLIF(lower(regexp_replace(k.family, '[^[:alnum:]]', '', 'g')), ''),
                    n.document_id::text
                ) AS link,
                least(k.trust, d.trust) AS link_trust, f.item, f.value, f.trust, f.quote, f.place
            FROM (SELECT n.* FROM {source.jobs}) AS n
            LEFT JOIN LATERAL (
                SELECT {_ONE_LINE} AS family, {_TRUST} AS trust
                {_of_item(key)} AND f.final_value IS NOT NULL {_SUREST}
            ) AS k ON true
            LEFT JOIN LATERAL (
                SELECT f.date AS valid_from, {_TRUST} AS trust
                {_of_item(date)} AND f.date IS NOT NULL {_SUREST}
            ) AS d ON true
            LEFT JOIN entity_values AS e ON e.column_name = {column_name} AND e.value = k.family
            CROSS JOIN LATERAL (
                SELECT f.item, string_agg({_ONE_LINE}, '; ' ORDER BY f.id) AS value,
                    min({_TRUST}) AS trust, (array_agg(f.quote {surest}))[1] AS quote,
                    (array_agg(f.place {surest}))[1] AS place
                FROM facts AS f
                WHERE f.job_id = n.job_id AND f.item = ANY({items}) AND f.final_value IS NOT NULL
                GROUP BY f.item
            ) AS f
        ) AS v
        WINDOW same_item AS (PARTITION BY v.link, v.item),
            same_date AS (PARTITION BY v.link, v.item, v.valid_from),
            later AS (
                PARTITION BY v.link, v.item ORDER BY v.valid_from NULLS FIRST, v.document_id
            )
        """


def _row_of_fact(columns: Sequence[AnswerColumn]) -> str:
    """Return the expression for the path of the list element that contains a fact.

    That of a column has the parent path. Others are slower to match: a name may contain a dot.
    """
    names = [re.escape(json_values.pointer("", n)[1:]) for n in columns[0].rows.split(".")]
    pattern = quoted_value(f"^/data/{'(?:/[0-9]+)?[./]'.join(names)}/[0-9]+")
    items = quoted_value([c.item for c in columns if c.kind is not ColumnKind.JSON])
    return (
        f"CASE WHEN f.item = ANY({items}) THEN f.parent ELSE substring(f.path FROM {pattern}) END"
    )


def _cell(column: AnswerColumn) -> str:
    """Return the value of a column in a row: an item has one fact in a row, or a list of facts."""
    value, exists = _value(column)
    if column.kind.is_list:
        aggregate = f"array_agg({value} ORDER BY f.id)"
    else:
        aggregate = f"{'bool_or' if column.kind is ColumnKind.BOOLEAN else 'max'}({value})"
    return f"{aggregate} FILTER (WHERE f.item = {quoted_value(column.item)} AND {exists})"


def _listed(columns: Sequence[tuple[str, str]]) -> str:
    """Return the end of a list of columns, from their names and expressions."""
    return "".join(f", {expression} AS {quoted_name(name)}" for name, expression in columns)
