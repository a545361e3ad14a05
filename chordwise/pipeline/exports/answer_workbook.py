"""Writes a table of answers as a workbook for people: values first, cells to check in color."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, TypeAlias

from psycopg import sql

from chordwise.domain.answer_tables import AnswerColumn
from chordwise.domain.items import ColumnKind
from chordwise.domain.number_formats import counted
from chordwise.domain.trust import Trust
from chordwise.pipeline.exports import selection, workbook
from chordwise.pipeline.exports.selection import Selection
from chordwise.pipeline.exports.table import Table, is_number, text_of
from chordwise.pipeline.exports.workbook import Book, Cell, FilteredSheet
from chordwise.relations.relation import Row
from chordwise.settings import Settings
from chordwise.storage import answer_tables
from chordwise.storage.answer_tables import SCHEMA, AnswerTable

_COLORS: Mapping[str, str] = {Trust.CHECK: "#FFE699", Trust.UNREAD: "#D9D9D9"}
_NOTES: Mapping[str, str] = {
    Trust.CHECK: "To check",
    Trust.UNREAD: "A part of the document was not read, or only searched without a language model.",
}
_NUMBERS = (ColumnKind.NUMBER, ColumnKind.MONEY, ColumnKind.BOOLEAN)
_TYPED = (*_NUMBERS, ColumnKind.DATE)
# Why cells should be checked; why documents should, or have no answer; and values of no type.
_REMARKS = """
SELECT n.document_id, '' AS item, NULL AS parent, NULL AS quote, NULL AS place, NULL AS final_value,
    coalesce(a.reasons, ARRAY[concat_ws(': ', n.status, j.error_message)]) AS reasons
FROM answer_jobs AS n
INNER JOIN jobs AS j ON j.id = n.job_id
LEFT JOIN answer_trust AS a ON a.job_id = n.job_id
WHERE n.saved_as = {table} AND (a.trust IS NULL OR a.trust = 'check')
UNION ALL
SELECT n.document_id, f.item, f.parent, f.quote, f.place, f.final_value, f.reasons
FROM answer_jobs AS n INNER JOIN fact_quotes AS f ON f.job_id = n.job_id
WHERE n.saved_as = {table} AND (
    f.trust = 'check'
    OR f.item = ANY({dates}::text[]) AND f.date IS NULL
    OR f.item = ANY({numbers}::text[]) AND f.number IS NULL
)
UNION ALL
SELECT n.document_id, c.field, NULL, c.other_quote, c.other_place, NULL,
    ARRAY['another chunk has ' || c.other_value]
FROM answer_jobs AS n INNER JOIN contradictions AS c ON c.job_id = n.job_id
WHERE n.saved_as = {table}
"""
_OF_QUOTES = "f.item, f.row_index, f.final_value, f.quote, f.place, f.trust"
_QUOTES = """
SELECT n.document, {quotes}
FROM answer_jobs AS n INNER JOIN fact_quotes AS f ON f.job_id = n.job_id
WHERE n.saved_as = {table} AND f.final_value IS NOT NULL AND f.quote IS NOT NULL
ORDER BY n.document, n.document_id, f.row_index NULLS FIRST,
    array_position({items}::text[], f.item), f.start_char
"""
_ABOUT = """
WITH n AS (SELECT * FROM answer_jobs WHERE saved_as = {table})
SELECT
    (SELECT string_agg(concat_ws(': ', analysis_type, asked), E'\n') FROM (
        SELECT DISTINCT ON (n.analysis_type) n.analysis_type, nullif(concat_ws('; ',
            nullif(j.options ->> 'instructions', ''),
            (SELECT string_agg(i, ', ') FROM json_array_elements_text(j.options -> 'items') AS i),
            (SELECT string_agg(i, ', ') FROM json_array_elements_text(j.options -> 'labels') AS i),
            'JSON Schema ' || (j.options -> 'schema' ->> 'title')
        ), '') AS asked
        FROM n INNER JOIN jobs AS j ON j.id = n.job_id ORDER BY n.analysis_type, j.id DESC
    ) AS questions) AS "Asked",
    (SELECT string_agg(DISTINCT concat(r.provider, '/', r.model,
            CASE WHEN NOT r.language_model THEN ': preview without a language model' END), ', ')
        FROM n INNER JOIN results AS r ON r.job_id = n.job_id) AS "Model",
    (SELECT concat_ws(' to ', min(n.analyzed_at)::date, nullif(
            max(n.analyzed_at)::date, min(n.analyzed_at)::date)) FROM n) AS "Analyzed",
    now()::date::text AS "Exported",
    (SELECT concat_ws(', ', '$' || round(sum(c.cost_usd), 4),
            nullif(sum(c.unpriced_calls), 0) || ' calls of unknown cost')
        FROM run_costs AS c INNER JOIN runs ON runs.id = c.run_id WHERE runs.saved_as = {table})
        AS "Cost of its runs"
"""
_FAILURES = """
SELECT DISTINCT f.source, concat_ws(' ', f.analysis_type, f.state,
    'characters ' || f.start_char || '–' || f.end_char), coalesce(f.error_message, f.error_code)
FROM failures AS f INNER JOIN runs ON runs.name = f.run
WHERE runs.saved_as = {table} AND NOT EXISTS (
    SELECT FROM answer_jobs AS n
    WHERE n.saved_as = {table} AND n.source = f.source
        AND n.analysis_type = coalesce(f.analysis_type, n.analysis_type)
        AND n.status IN ('succeeded', 'nothing found')
)
ORDER BY 1, 2
"""
_Key: TypeAlias = tuple[object, str, str | None]
"""A cell: its document, its item (none for the document as a whole), and the path of its row."""
_List: TypeAlias = tuple[str, int, int]
"""A list of a document: the link to its first row, and its numbers of rows and cells to check."""


def write(
    sink: BinaryIO, settings: Settings, answers: AnswerTable, *, raw: bool, all_columns: bool
) -> int:
    """Write a sheet of documents, one for each list, one of quotes, and one about the table.

    With `all_columns` the columns for programs are written too. Return the number of documents.

    Raises:
        UsageError: A text is longer than a cell permits.
        ConfigurationError: The reader role is missing, or cannot log in.
    """
    columns = answer_tables.columns_of(answers)
    lists = answer_tables.list_views(answers.name, columns)
    parts = {
        "table": sql.Literal(answers.name),
        "items": sql.Literal([column.item for column in columns]),
        "quotes": sql.SQL("f.*" if all_columns else _OF_QUOTES),
        "dates": sql.Literal([one.item for one in columns if one.kind is ColumnKind.DATE]),
        "numbers": sql.Literal([one.item for one in columns if one.kind in _NUMBERS]),
    }
    selections: list[Selection | str] = [
        *(Selection(name=f"{SCHEMA}.{view}") for view in (answers.name, *lists.values())),
        *(
            sql.SQL(statement).format(**parts).as_string(None)
            for statement in (_REMARKS, _QUOTES, _ABOUT, _FAILURES)
        ),
    ]
    with (
        selection.opened_in_one_snapshot(settings.require_sql_url(), selections) as tables,
        workbook.opened(sink, raw=raw, wraps=True) as book,
    ):
        documents, *of_lists, remarks, quotes, about, failures = tables
        pages_url = settings.web.public_url.rstrip("/")
        writer = _Writer(book, columns, pages_url, all_columns=all_columns)
        writer.read_remarks(remarks)
        sheet = writer.new_sheet(answers.name, "", documents)
        for (rows, view), table in zip(lists.items(), of_lists, strict=True):
            title = view.removeprefix(f"{answers.name}_")
            writer.add_elements(writer.new_sheet(title, rows, table), rows, table)
        writer.add_documents(sheet, documents)
        writer.add_quotes(quotes)
        writer.add_account(answers.name, about, failures)
    return sheet.count


class _Writer:
    """Writes the sheets in order, and counts the cells of each field by state."""

    def __init__(
        self, book: Book, columns: Sequence[AnswerColumn], pages_url: str, *, all_columns: bool
    ) -> None:
        self._book = book
        self._columns = columns
        self._pages_url = pages_url
        self._all_columns = all_columns
        self._notes: dict[_Key, list[str]] = defaultdict(list)
        self._texts: dict[_Key, str] = {}
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        names = dict.fromkeys(column.rows for column in columns if column.rows)
        self._lists: dict[str, dict[object, _List]] = {name: {} for name in names}

    def read_remarks(self, table: Table) -> None:
        """Read the notes of cells, and the values that are shown as they are written."""
        lists = {column.item for column in self._columns if column.rows}
        for record in _records(table):
            row = record["parent"] if record["item"] in lists else None
            key = record["document_id"], record["item"], row
            if record["reasons"]:
                quote = f"\n“{record['quote']}” {record['place'] or ''}" if record["quote"] else ""
                self._notes[key].append(f"{', '.join(record['reasons'])}{quote}")
            if record["final_value"] is not None:
                self._texts.setdefault(key, record["final_value"])

    def new_sheet(self, title: str, rows: str, table: Table) -> FilteredSheet:
        """Return a sheet for the rows of a list, or for the documents if `rows` is empty."""
        lists = [] if rows else [f"{_words(name)} (rows)" for name in self._lists]
        outer = () if rows else ("To check", "File")
        further = self._further(table, [column.name for column in self._of(rows)])
        headings = ["Document", *map(_heading, self._of(rows)), *lists, *outer, *further]
        return FilteredSheet(self._book, title, headings)

    def add_elements(self, sheet: FilteredSheet, rows: str, table: Table) -> None:
        """Write the rows of a list, which the sheet of the documents counts."""
        columns, lists = self._of(rows), self._lists[rows]
        further = self._further(table, [column.name for column in columns])
        for record in _records(table):
            document_id = record["document_id"]
            link, count, to_check = lists.get(document_id, (sheet.link, 0, 0))
            lists[document_id] = (link, count + 1, to_check + record["needs_check"])
            values = [self._value(record, column) for column in columns]
            sheet.add([record["document"], *values, *(_lines(record[name]) for name in further)])
        sheet.finish()

    def add_documents(self, sheet: FilteredSheet, table: Table) -> None:
        """Write a row for each document, after the rows of all lists."""
        columns = self._of("")
        further = self._further(table, [column.name for column in columns])
        for record in _records(table):
            values = [self._value(record, column) for column in columns]
            lists = [_list(counts.get(record["document_id"])) for counts in self._lists.values()]
            file = Cell(value=record["source"], link=_file_link(record["source"]))
            outer = (record["needs_check"], file, *(_lines(record[name]) for name in further))
            sheet.add([self._document(record, file.link), *values, *lists, *outer])
        sheet.finish()

    def add_quotes(self, table: Table) -> None:
        """Write the quotes, those of a document together and in the order of the fields."""
        columns = {column.item: column for column in self._columns}
        further = self._further(table, ["final_value", "quote", "place"])
        headings = ["Document", "Field", "Value", "Quote", "Place", *further]
        sheet = FilteredSheet(self._book, "Quotes", headings)
        for record in _records(table):
            column = columns.get(record["item"])
            field = _heading(column) if column else _words(record["item"])
            if column and column.rows:
                field = f"{column.rows} {record['row_index'] + 1}: {field}"
            color = _COLORS.get(record["trust"] or "", "")
            value = Cell(value=record["final_value"], color=color)
            names = ("quote", "place", *further)
            sheet.add([record["document"], field, value, *(_lines(record[name]) for name in names)])
        sheet.finish()

    def add_account(self, name: str, about: Table, failures: Table) -> None:
        """Write what was asked, by which model, the states of all cells, and what was not read."""
        headings = ["About", name, "Filled", *map(str.capitalize, Trust)]
        sheet = FilteredSheet(self._book, "About", headings)
        for record in _records(about):
            for label, value in record.items():
                sheet.add([label, value])
        descriptions = {_path(column): column.description for column in self._columns}
        for field, counts in self._counts.items():
            states = [
                Cell(value=counts[state], color=_COLORS.get(state, "")) if counts[state] else None
                for state in Trust
            ]
            sheet.add([field, descriptions.get(field), counts["filled"], *states])
        for source, state, reason in itertools.chain.from_iterable(failures.batches):
            sheet.add(["Not read", f"{source}\n{state}: {reason}"])
        sheet.finish()

    def _of(self, rows: str) -> Sequence[AnswerColumn]:
        return [column for column in self._columns if column.rows == rows]

    def _further(self, table: Table, names: Sequence[str]) -> Sequence[str]:
        """Return the columns of a table for programs, if they are requested."""
        shown = {"document", *names}
        return [name for name in table.names if name not in shown] if self._all_columns else ()

    def _document(self, record: Row, link: str) -> Cell:
        if self._pages_url:
            link = f"{self._pages_url}/documents/{record['document_id']}?job={record['job_id']}"
        note = "\n".join(self._notes.get((record["document_id"], "", None), ()))
        trust = Trust.UNREAD if record["analyzed_at"] is None else Trust.CHECK
        self._counts["Documents"]["filled"] += 1
        self._counts["Documents"][trust] += bool(note)
        color = _COLORS[trust] if note else ""
        return Cell(value=record["document"], link=link, note=note, color=color)

    def _value(self, record: Row, column: AnswerColumn) -> Cell:
        """Return the cell of a field; a value that is not of its type is shown as written."""
        key = record["document_id"], column.item, record["path"] if column.rows else None
        value, note = record[column.name], "\n".join(self._notes.get(key, ()))
        trust = record[f"{column.name}_trust"] or ""
        note = note or _NOTES.get(trust, "")
        if value is None and column.kind in _TYPED and key in self._texts:
            value = self._texts[key]
            note = f"{note}\nShown as written: not recognized as {column.kind}".strip()
        counts = self._counts[_path(column)]
        counts["filled"] += value is not None
        counts[trust] += 1
        return Cell(
            value=_lines(value),
            number_format=_number_format(value, column, record),
            color=_COLORS.get(trust, ""),
            note=note,
        )


def _list(counts: _List | None) -> Cell:
    """Return the number of rows of a list, with a link to the first one."""
    link, count, to_check = counts or ("", None, 0)
    note = f"{counted(to_check, 'cell')} to check" if to_check else ""
    return Cell(value=count, link=link, note=note, color=_COLORS[Trust.CHECK] if note else "")


def _records(table: Table) -> Iterator[Row]:
    for rows in table.batches:
        yield from (dict(zip(table.names, row, strict=True)) for row in rows)


def _heading(column: AnswerColumn) -> str:
    return _words(column.name)


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _path(column: AnswerColumn) -> str:
    return f"{column.rows}: {_heading(column)}" if column.rows else _heading(column)


def _lines(value: object) -> object:
    """Return a list of values as lines."""
    if isinstance(value, list) and not any(isinstance(element, dict | list) for element in value):
        return "\n".join(map(text_of, value))
    return value


def _number_format(value: object, column: AnswerColumn, record: Row) -> str:
    if column.kind is not ColumnKind.MONEY or not (isinstance(value, Decimal) and is_number(value)):
        return ""
    currency = record.get(f"{column.name}_currency")
    digits = "#,##0" if value == value.to_integral_value() else "#,##0.00##"
    return f'{digits} "{currency}"' if currency else digits


def _file_link(source: str) -> str:
    """Return the link to a file if it is on this machine; a part of a file has that of the file."""
    for name in (source, source.partition("#")[0]):
        if name and Path(name).is_file():
            # XlsxWriter changes the slashes of links that begin with “file”.
            return Path(name).absolute().as_uri().replace("file", "FILE", 1)
    return ""
