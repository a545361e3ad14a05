"""Plans over answer tables as SQL: the result, and the documents inside and outside of it."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from psycopg import Connection, IsolationLevel

from chordwise.domain import identifiers, json_values, plans
from chordwise.domain.answer_tables import AnswerColumn
from chordwise.domain.items import ColumnKind
from chordwise.domain.learning.statistics import max_wrong
from chordwise.domain.number_formats import counted
from chordwise.domain.plans import (
    Aggregate,
    CatalogueTable,
    Condition,
    Grouping,
    Operator,
    Part,
    Plan,
)
from chordwise.domain.trust import Trust
from chordwise.domain.typed_values import TRUTHS
from chordwise.errors import UsageError
from chordwise.relations.relation import Relation, Row, rows
from chordwise.storage import answer_tables
from chordwise.storage.answer_tables import SCHEMA, AnswerTable
from chordwise.storage.sql_text import quoted_name, quoted_value

_MAX_SAMPLES = 8
_MAX_ROWS = 1_000
_RISK = 0.05
_MARGIN = 0.05
"""The share of documents to which a number is known after the checks that an account proposes."""
_MAX_NAMES = 5
_MAX_KNOWN = 2_000
_WHOLE = re.compile(r"^(/|[a-z0-9+]+://)")
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_READ = "('succeeded', 'partial', 'nothing found')"
_DECIDED = {Trust.CORRECTED, Trust.CONFIRMED}
_FUNCTIONS = {
    Aggregate.SUM: "sum",
    Aggregate.AVERAGE: "avg",
    Aggregate.MINIMUM: "min",
    Aggregate.MAXIMUM: "max",
}
_COMPARED = {
    Operator.IS: "=",
    Operator.IS_NOT: "<>",
    Operator.LESS: "<",
    Operator.AT_MOST: "<=",
    Operator.GREATER: ">",
    Operator.AT_LEAST: ">=",
}
NOT_TAKEN_IN = Relation(
    query="""SELECT DISTINCT ON (i.source) i.source, i.outcome::text AS reason, i.message
FROM intakes AS i INNER JOIN runs AS r ON r.id = i.run_id""",
    filters={
        "table": """r.saved_as = %(table)s AND i.outcome NOT IN ('accepted', 'duplicate')
AND NOT EXISTS (
    SELECT FROM intakes AS later INNER JOIN runs AS s ON s.id = later.run_id
    WHERE s.saved_as = %(table)s AND later.source = i.source AND later.id > i.id
        AND later.outcome IN ('accepted', 'duplicate')
)"""
    },
    order="i.source, i.id DESC",
)
"""The files of a table's runs of which no document was made, with the newest reason."""
QUOTES = Relation(
    query="""SELECT source, item, final_value AS value, quote, place, trust, document_id
FROM fact_quotes WHERE job_id = ANY(%(job_ids)s) AND item = ANY(%(items)s)""",
    order="source, item, start_char",
)
# A document counts as one check, of all its values, since the bounds are those of documents.
_CHECKS = """SELECT count(*) AS checks, count(*) FILTER (WHERE is_wrong) AS wrong FROM (
    SELECT coalesce(bool_or(f.verdict <> 'approved'), false) AS is_wrong FROM facts AS f
    WHERE f.job_id = ANY(%(job_ids)s) AND f.item = ANY(%(items)s)
    GROUP BY f.job_id
    HAVING max(coalesce(cardinality(f.doubts), 0)) = 0
        AND (bool_and(f.verdict IS NOT NULL) OR bool_or(f.verdict <> 'approved'))
) AS checked"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """The answer to a plan: its rows, and the account of the documents.

    `documents` are those in the rows of the table, `matching` those in the result. `unread` could
    not be read or have no answer yet, `silent` do not mention a column, and in `unsure` nothing was
    found for it, which is not certain; all three are outside of the result. `outdated` are files
    that were read in an earlier version and cannot be read now. `notes` are sentences about what
    else a reader has to know.

    Of the matching ones, `supported` do not need a check. `low` and `high` bound the number of
    matching documents among those that were read, with 95 % if `checks` documents without a doubt
    were chosen at random and checked; without checks they assume that their values are right. A
    document whose values a person has decided counts as it is, and `undecided` counts the others.
    After `more_checks` without an error, the number would be known to `margin` more or fewer.
    """

    plan: Plan
    statement: str
    columns: Sequence[str]
    rows: Sequence[tuple[object, ...]]
    documents: int
    matching: Sequence[Row]
    silent: Sequence[Row]
    unsure: Sequence[Row]
    unread: Sequence[Row]
    outdated: Sequence[Row]
    notes: Sequence[str]
    supported: int
    low: int
    high: int
    undecided: int
    checks: int
    more_checks: int
    margin: int

    @property
    def is_full(self) -> bool:
        """Whether there can be more rows than those shown, although the plan has no limit."""
        return self.plan.limit is None and len(self.rows) == _MAX_ROWS


@dataclass(frozen=True)
class CountedTable:
    """A stored table with the SQL of plans over it, or over one of its lists."""

    stored: AnswerTable
    rows: str = ""

    @cached_property
    def columns(self) -> Mapping[str, AnswerColumn]:
        """The columns that plans can use, by name."""
        columns = answer_tables.columns_of(self.stored)
        return {column.name: column for column in columns if column.rows == self.rows}

    @property
    def name(self) -> str:
        """The name of the view."""
        views = answer_tables.list_views(self.stored.name, answer_tables.columns_of(self.stored))
        return views[self.rows] if self.rows else self.stored.name

    def catalogue(self, connection: Connection | None = None) -> CatalogueTable:
        """Return what a plan can refer to; with a connection, with frequent values."""
        return CatalogueTable(
            name=self.name,
            rows=self.rows,
            kinds={name: column.kind for name, column in self.columns.items()},
            descriptions={name: column.description for name, column in self.columns.items()},
            samples=self._samples(connection) if connection else {},
        )

    def _samples(self, connection: Connection) -> Mapping[str, Sequence[str]]:
        samples: dict[str, Sequence[str]] = {}
        for name, column in self.columns.items():
            if column.kind in (ColumnKind.TEXT, ColumnKind.TEXTS, ColumnKind.LABEL):
                value = f"unnest({_field(name)})" if column.kind.is_list else _field(name)
                query = f"""SELECT left(value, 80) AS value FROM (
    SELECT {value} AS value FROM {_view(self.name)} AS t LIMIT 1000) AS v
WHERE value IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {_MAX_SAMPLES}"""
                samples[name] = [str(row["value"]) for row in rows(connection, query)]
        return samples

    def statement(self, plan: Plan) -> str:
        """Return the statement that computes a checked plan, to run as it is or to copy."""
        groups = [self._group(index, group) for index, group in enumerate(plan.group_by, start=1)]
        shown = [f"{value} AS {_name(_title(group))}" for value, _, group in groups]
        joins = [join for _, join, _ in groups if join]
        conditions = [*map(self._condition, plan.where), *_below("t", plan.paths)]
        conditions += [f"{value} IS NOT NULL" for value, _, _ in groups]
        measured, join = self._measured(plan)
        if join:
            joins.append(join)
        if not plan.columns and not self.rows:
            conditions.append(f"t.status IN {_READ}")
        if plan.column:
            conditions.append(f"{_field(plan.column)} IS NOT NULL")
        if self._is_money(plan) and plan.measure in _FUNCTIONS:
            shown.append(f"{_field(f'{plan.column}_currency')} AS currency")
        keys = len(shown)
        selected = ",\n    ".join([*shown, *measured])
        parts = [f"SELECT {selected}", f"FROM {_view(self.name)} AS t", *joins]
        parts += [f"WHERE {' AND '.join(conditions)}"] if conditions else []
        is_list = plan.measure is Aggregate.LIST
        if plan.limit and self._is_money(plan) and plan.measure is not Aggregate.COUNT:
            value = plan.column if is_list else f"{plan.measure}_{plan.column}"
            grouped = f"\nGROUP BY {_numbers(keys)}" * (not is_list)
            currency = f"{plan.column}_currency" if is_list else "currency"
            return _best_of_currencies(plan, "\n".join(parts) + grouped, currency, value)
        if is_list:
            order = _order_of_list(plan, keys + len(measured))
            return "\n".join([*parts, f"ORDER BY {order}", f"LIMIT {_limit(plan)}"])
        if keys:
            is_over_time = not plan.limit and any(group.part for group in plan.group_by)
            first = f"{keys + 1} {_direction(plan)}, " * (not is_over_time)
            parts.append(f"GROUP BY {_numbers(keys)}")
            parts.append(f"ORDER BY {first}{_numbers(keys)}\nLIMIT {_limit(plan)}")
        return "\n".join(parts)

    def _is_money(self, plan: Plan) -> bool:
        return bool(plan.column) and self.columns[plan.column].kind is ColumnKind.MONEY

    def _measured(self, plan: Plan) -> tuple[Sequence[str], str]:
        """Return the selected expressions of the measure, and the join that they need."""
        unit = "count(*) AS rows" if self.rows else "count(DISTINCT t.document_id) AS documents"
        if plan.measure is Aggregate.COUNT:
            if plan.column and self.columns[plan.column].kind.is_list:
                return [f"count(DISTINCT m.value) AS {_name(plan.column)}"], _unnested(
                    "m", plan.column
                )
            if plan.column:
                return [f"count(DISTINCT {_field(plan.column)}) AS {_name(plan.column)}"], ""
            return [unit], ""
        if plan.measure is Aggregate.LIST:
            names = [name for name in plan.columns if name not in {g.column for g in plan.group_by}]
            columns = self.columns
            with_currency = [
                shown
                for name in names
                for shown in (name, f"{name}_currency")[: 1 + (columns[name].kind == "money")]
            ]
            return ["t.document", *map(_field, with_currency)], ""
        function = _FUNCTIONS[plan.measure]
        is_list = self.columns[plan.column].kind.is_list
        value = "m.value" if is_list else _field(plan.column)
        name = _name(f"{plan.measure}_{plan.column}")
        return [f"{function}({value}) AS {name}", unit], _unnested(
            "m", plan.column
        ) if is_list else ""

    def _group(self, index: int, group: Grouping) -> tuple[str, str, Grouping]:
        """Return the expression of a group, and the join that it needs.

        A row is in a group once, however many values of its list belong to the group.
        """
        is_list = self.columns[group.column].kind.is_list
        value = "v.value" if is_list else _field(group.column)
        if group.part is Part.YEAR:
            value = f"extract(year FROM {value})::int"
        elif group.part is Part.MONTH:
            value = f"to_char({value}, 'YYYY-MM')"
        if not is_list:
            return value, "", group
        unnested = f"unnest({_field(group.column)}) AS v (value)"
        join = f"CROSS JOIN LATERAL (SELECT DISTINCT {value} AS value FROM {unnested}) AS g{index}"
        return f"g{index}.value", join, group

    def _condition(self, condition: Condition) -> str:
        """Return a condition in SQL; a list fulfils it if one of its values does."""
        column, operator = self.columns[condition.column], condition.operator
        field = _field(column.name)
        if not operator.has_value:
            mentioned = f"({field} IS NOT NULL OR {self._is_unclear(column.name)})"
            is_sure = f"{_field(f'{column.name}_trust')} NOT IN ('unread', 'check')"
            return mentioned if operator is Operator.MENTIONED else f"NOT {mentioned} AND {is_sure}"
        literal = quoted_value(condition.value)
        entities = next(
            (c for c in self.columns.values() if c.grouped == self._grouped(column)), None
        )
        if operator in (Operator.IS, Operator.IS_NOT) and entities:
            column, field = entities, _field(entities.name)
            literal = f"""coalesce((SELECT e.entity FROM entity_values AS e
    WHERE e.column_name = {quoted_value(entities.grouped)} AND lower(e.value) = lower({literal})
    LIMIT 1), {literal})"""
        if column.kind.is_list:
            one = self._comparison("v.value", column, condition, literal)
            no = "NOT " if operator is Operator.IS_NOT else ""
            exists = f"EXISTS (SELECT FROM unnest({field}) AS v (value) WHERE {one})"
            return f"({field} IS NOT NULL AND {no}{exists})" if no else exists
        return self._comparison(field, column, condition, literal)

    def _grouped(self, column: AnswerColumn) -> str:
        """Return the name under which the entities of a column are stored."""
        return column.grouped or f"{self.name}.{column.name}"

    def _is_unclear(self, name: str) -> str:
        """Return the condition that a document has a value that its column does not show."""
        if self.rows:
            return "false"
        item = quoted_value(self.columns[name].item)
        rejected = f"""{_field(name)} IS NULL AND EXISTS (
    SELECT FROM facts AS f
    WHERE f.job_id = t.job_id AND f.item = {item} AND f.verdict = 'rejected')"""
        return f"(({quoted_value(name)} = ANY(t.unread)) IS TRUE OR {rejected})"

    def _comparison(
        self, value: str, column: AnswerColumn, condition: Condition, literal: str
    ) -> str:
        operator = condition.operator
        if operator is Operator.IS_NOT and column.kind.is_list:
            operator = Operator.IS
        if operator is Operator.CONTAINS:
            return f"strpos(lower({value}::text), lower({literal})) > 0"
        sign = _COMPARED[operator]
        if column.kind in plans.NUMBERS:
            return self._amount(value, column, condition, sign)
        if column.kind in (ColumnKind.DATE, ColumnKind.DATES):
            first, last = plans.days_of(condition)
            if operator in (Operator.IS, Operator.IS_NOT):
                no = "NOT " if operator is Operator.IS_NOT else ""
                return f"{value} {no}BETWEEN DATE '{first}' AND DATE '{last}'"
            day = last if operator in (Operator.AT_MOST, Operator.GREATER) else first
            return f"{value} {sign} DATE '{day}'"
        if column.kind is ColumnKind.BOOLEAN:
            return f"{value} {sign} {TRUTHS[condition.value.lower()]}"
        return f"lower({value}) {sign} lower({literal})"

    def _amount(self, value: str, column: AnswerColumn, condition: Condition, sign: str) -> str:
        number, currency = plans.amount_of(condition)
        if column.kind is not ColumnKind.MONEY or not currency:
            return f"{value} {sign} {number}"
        code = _field(f"{column.name}_currency")
        if condition.operator is Operator.IS_NOT:
            other = f"{code} IS DISTINCT FROM {quoted_value(currency)}"
            return f"({value} IS NOT NULL AND ({value} <> {number} OR {other}))"
        return f"{value} {sign} {number} AND {code} = {quoted_value(currency)}"

    def count(self, connection: Connection, plan: Plan) -> Count:
        """Compute a checked plan, and the account of the documents, in a snapshot of its own."""
        statement = self.statement(plan)
        connection.rollback()
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        cursor = connection.execute(statement.encode())
        names = [column.name for column in cursor.description or ()]
        result = cursor.fetchall()
        documents = rows(connection, self._accounts(plan).replace("%", "%%"))
        below = [condition.replace("%", "%%") for condition in _below("i", plan.paths)]
        not_taken = NOT_TAKEN_IN.read(connection, {"table": self.stored.name}, where=below)
        of_state: dict[str, list[Row]] = defaultdict(list)
        for document in documents:
            of_state[document["state"]].append(document)
        if plan.paths and not (documents or not_taken):
            raise UsageError(
                f"The table {self.stored.name} has no document at {' or '.join(plan.places)}.",
                "Paths are those of the documents: `chordwise results` shows them.",
            )
        sources = Counter(row["source"] for row in documents)
        unread = [row for row in not_taken if row["source"] not in sources]
        # A document that is silent, as far as it was read, can be one that matches.
        matching = of_state["matching"]
        others = of_state["other"] + of_state["silent"] + of_state["unsure"]
        checks = self._checks(connection, plan, matching + others)
        supported = sum(row["trust"] != Trust.CHECK for row in matching)
        doubted = sum(row["trust"] in (Trust.CHECK, Trust.UNREAD) for row in others)
        certain = supported + len(others) - doubted
        open_inside = supported - sum(row["trust"] in _DECIDED for row in matching)
        open_outside = certain - supported - sum(row["trust"] in _DECIDED for row in others)
        checked = min(checks["checks"], certain)
        wrong = max_wrong(certain, checked, checks["wrong"], _RISK) if checked else 0
        more_checks, margin = _outlook(certain, checked, checks["wrong"])
        to_check = len(matching) - supported + doubted
        return Count(
            plan=plan,
            statement=statement,
            columns=names,
            rows=result,
            documents=len(documents) + len(unread),
            matching=matching,
            silent=of_state["silent"],
            unsure=of_state["unsure"],
            unread=[*of_state["unread"], *unread],
            outdated=[row for row in not_taken if row["source"] in sources],
            notes=[*self._notes(connection, plan), *_repeated(sources)],
            supported=supported,
            low=supported - min(wrong, open_inside),
            high=len(matching) + doubted + min(wrong, open_outside),
            undecided=open_inside + open_outside + to_check,
            checks=checks["checks"],
            more_checks=to_check + more_checks,
            margin=margin,
        )

    def _notes(self, connection: Connection, plan: Plan) -> Iterator[str]:
        """Yield what a reader may not expect: values that do not occur, and mixed currencies."""
        for condition in plan.where:
            kind, operator = self.columns[condition.column].kind, condition.operator
            is_text = kind in (ColumnKind.TEXT, ColumnKind.TEXTS, ColumnKind.LABEL)
            if is_text and operator in (Operator.IS, Operator.IS_NOT):
                yield from self._unknown_value(connection, condition)
            is_amount = kind is ColumnKind.MONEY and operator.has_value
            if is_amount and not plans.amount_of(condition)[1]:
                yield (
                    f"Amounts of {condition.column} are compared in any currency; "
                    f"name one: {condition.column} {operator} EUR {condition.value}"
                )

    def _unknown_value(self, connection: Connection, condition: Condition) -> Iterator[str]:
        field = _field(condition.column)
        is_list = self.columns[condition.column].kind.is_list
        value = f"unnest({field})" if is_list else field
        query = f"SELECT DISTINCT {value} AS value FROM {_view(self.name)} AS t LIMIT {_MAX_KNOWN}"
        known = [str(row["value"]) for row in rows(connection, query) if row["value"] is not None]
        spelled = {text.lower() for text in known}
        if len(known) < _MAX_KNOWN and condition.value.lower() not in spelled:
            near = identifiers.similar_names(condition.value, known)
            similar = f" Similar: {', '.join(near)}." if near else ""
            yield f"No document has “{condition.value}” as {condition.column}.{similar}"

    def _accounts(self, plan: Plan) -> str:
        """Return the statement for the state of each document of the table."""
        names = plan.columns
        trusts = [f"t.{_name(f'{name}_trust')}" for name in names]
        least = f"least({', '.join(trusts)})" if trusts else "NULL::trust"
        conditions = [*map(self._condition, plan.where)]
        needed = [group.column for group in plan.group_by] + ([plan.column] if plan.column else [])
        conditions += [f"{_field(name)} IS NOT NULL" for name in needed]
        compared = [c.column for c in plan.where if c.operator.has_value] + needed
        unclear = " OR ".join(dict.fromkeys(map(self._is_unclear, compared))) or "false"
        silent = " OR ".join(f"{_field(name)} IS NULL" for name in compared) or "false"
        below = " AND ".join(_below("d" if self.rows else "t", plan.paths))
        if self.rows:
            return f"""SELECT d.document_id, d.job_id, d.document, d.source, d.status AS reason,
    CASE WHEN count(t.document_id) > 0 THEN min({least}) ELSE a.trust END AS trust,
    CASE WHEN d.status NOT IN {_READ} THEN 'unread'
        WHEN bool_or({" AND ".join(["t.document_id IS NOT NULL", *conditions])}) THEN 'matching'
        WHEN count(t.document_id) > 0 THEN 'other'
        WHEN a.is_read AND a.trust = 'check' THEN 'unsure'
        WHEN a.is_read THEN 'silent' ELSE 'unread' END AS state
FROM {_view(self.stored.name)} AS d
LEFT JOIN {_view(self.name)} AS t ON t.document_id = d.document_id
LEFT JOIN answer_trust AS a ON a.job_id = d.job_id
{"WHERE " * bool(below)}{below}
GROUP BY d.document_id, d.job_id, d.document, d.source, d.status, a.is_read, a.trust
ORDER BY d.source"""
        unread = " OR ".join(f"coalesce({trust}, 'unread') = 'unread'" for trust in trusts)
        unread = f"a.is_read IS NOT TRUE AND ({unread})" if unread else f"t.status NOT IN {_READ}"
        absences = [
            f"{_field(name)} IS NULL AND {_field(f'{name}_trust')} IN ('check', 'unread')"
            f" AND NOT {self._is_unclear(name)}"
            for name in names
        ]
        unsure = " OR ".join(absences) or "false"
        reason = f"CASE WHEN {unclear} THEN 'its value has another type or was rejected'"
        return f"""SELECT t.document_id, t.job_id, t.document, t.source,
    {reason} ELSE t.status END AS reason, {least} AS trust,
    CASE WHEN {unread} OR {unclear} THEN 'unread'
        WHEN {" AND ".join(conditions) or "true"} THEN 'matching'
        WHEN {unsure} THEN 'unsure' WHEN {silent} THEN 'silent' ELSE 'other' END AS state
FROM {_view(self.name)} AS t LEFT JOIN answer_trust AS a ON a.job_id = t.job_id
{"WHERE " * bool(below)}{below} ORDER BY t.source"""

    def _checks(self, connection: Connection, plan: Plan, documents: Sequence[Row]) -> Row:
        """Return how many documents without a doubt were checked, and how many have an error."""
        items = [self.columns[name].item for name in plan.columns]
        job_ids = [row["job_id"] for row in documents]
        (checks,) = rows(connection, _CHECKS, {"job_ids": job_ids, "items": items})
        return checks

    def quotes(self, connection: Connection, count: Count, limit: int) -> Sequence[Row]:
        """Return quotes for the values of the matching documents."""
        items = [self.columns[name].item for name in count.plan.columns]
        job_ids = [row["job_id"] for row in count.matching]
        return QUOTES.read(connection, {"job_ids": job_ids, "items": items}, limit=limit)


def _outlook(population: int, checks: int, wrong: int) -> tuple[int, int]:
    """Return how many further checks without an error bound the wrong values to `_MARGIN`."""
    margin = max(1, wrong, int(_MARGIN * population))
    more = bisect_left(
        range(population - checks),
        True,
        key=lambda more: max_wrong(population, checks + more, wrong, _RISK) <= margin,
    )
    return more, min(margin, max_wrong(population, checks + more, wrong, _RISK))


def _repeated(sources: Mapping[str, int]) -> Iterator[str]:
    if files := [source for source, number in sources.items() if number > 1]:
        more = f" and {len(files) - _MAX_NAMES:,} more" if len(files) > _MAX_NAMES else ""
        names = ", ".join(files[:_MAX_NAMES])
        yield f"Counted once for each content that was read under the same name: {names}{more}"


def tables_of(stored: AnswerTable) -> Iterator[CountedTable]:
    """Yield the table of documents, and that of each list of objects."""
    yield CountedTable(stored)
    lists = answer_tables.list_views(stored.name, answer_tables.columns_of(stored))
    yield from (CountedTable(stored, name) for name in lists)


def _below(alias: str, paths: Sequence[str]) -> Iterator[str]:
    """Yield the condition that a document is at one of the paths or below it."""
    if paths:
        yield f"({' OR '.join(_at(f'{alias}.source', path) for path in paths)})"


def _at(source: str, path: str) -> str:
    if path == ".":
        return f"{source} !~ {quoted_value(_WHOLE.pattern)}"
    # A row of a table, and a document in an archive or a mail, follow a #.
    within = (f"starts_with({source}, {quoted_value(f'{path}{mark}')})" for mark in "/#")
    return f"{source} = {quoted_value(path)} OR {' OR '.join(within)}"


def _numbers(count: int) -> str:
    return ", ".join(str(number + 1) for number in range(count))


def _best_of_currencies(plan: Plan, statement: str, currency: str, value: str) -> str:
    """Return the statement that ranks amounts of each currency on their own."""
    ranked = f"PARTITION BY x.{_name(currency)} ORDER BY x.{_name(value)} {_direction(plan)}"
    return f"""SELECT * FROM (
    SELECT x.*, row_number() OVER ({ranked}) AS rank FROM (
{statement}
    ) AS x
) AS y WHERE rank <= {_limit(plan)} ORDER BY {_name(currency)}, rank"""


def _limit(plan: Plan) -> int:
    return plan.limit or _MAX_ROWS


def _direction(plan: Plan) -> str:
    return f"{'ASC' if plan.is_ascending else 'DESC'} NULLS LAST"


def _order_of_list(plan: Plan, columns: int) -> str:
    """Return the order of listed documents; with a limit, it is that of the column."""
    order = "1, 2" if columns > 1 else "1"
    is_ranked = plan.limit and plan.column
    return f"{_field(plan.column)} {_direction(plan)}, {order}" if is_ranked else order


def _title(group: Grouping) -> str:
    return f"{group.part}_of_{group.column}" if group.part else group.column


def _unnested(alias: str, column: str) -> str:
    return f"CROSS JOIN LATERAL unnest({_field(column)}) AS {alias} (value)"


def _field(name: str) -> str:
    return f"t.{_name(name)}"


def _name(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else quoted_name(name)


def _view(name: str) -> str:
    return f"{SCHEMA}.{_name(name)}"


def headline(count: Count) -> str:
    """Return the figure of a plan without groups, with the documents it is of."""
    matching = f"{len(count.matching):,} of {counted(_read(count), 'document')}"
    if len(count.rows) == 1 and len(count.columns) == 1 and count.plan.measure != "list":
        if count.columns[0] == "documents":
            return matching
        return f"{cell(count.rows[0][0])} {count.columns[0]}, in {matching}"
    return f"In {matching}:"


def _read(count: Count) -> int:
    return count.documents - len(count.unread)


def cell(value: object) -> str:
    """Return a value of a row as text."""
    if value is None:
        return "∅"
    return value if isinstance(value, str) else json_values.encoded(value).strip('"')


def account(count: Count) -> Iterator[str]:
    """Yield the documents inside and outside of a figure, and its trust, in sentences."""
    unread = f"; unread {len(count.unread):,}: {_named(count.unread)}" if count.unread else ""
    yield f"Read: {_read(count):,} of {counted(count.documents, 'document')}{unread}"
    if count.outdated:
        number = counted(len(count.outdated), "document")
        yield f"Outdated: {number}, now not readable: {_named(count.outdated)}"
    yield from count.notes
    if count.silent:
        names = _named(count.silent, reason=False)
        yield f"Silent: {counted(len(count.silent), 'document')}: {names}"
    if count.unsure:
        names = _named(count.unsure, reason=False)
        number = counted(len(count.unsure), "document")
        yield f"Nothing found, which is not certain: {number}: {names}"
    if count.is_full:
        yield f"Rows: the first {len(count.rows):,}; there can be more."
    if count.plan.columns:
        yield _trust_in(count)


def _trust_in(count: Count) -> str:
    bounds = counted(count.high, "document")
    if count.low < count.high:
        bounds = f"between {count.low:,} and {bounds}"
    if _read(count) and not count.undecided:
        return f"Trust: {bounds}, since all of their values were checked"
    were = "was" if count.checks == 1 else "were"
    basis = (
        f"with 95 % if the {counted(count.checks, 'checked document')} {were} chosen at random"
        if count.checks
        else "if the values without a doubt are right; none of them was checked yet"
    )
    if count.more_checks:
        basis += f" ({counted(count.more_checks, 'more check')}: ± {count.margin:,})"
    to_check = len(count.matching) - count.supported
    supported = f"{count.supported:,} without a doubt, {to_check:,} to check"
    return f"Trust: {supported} → {bounds} {basis}"


def _named(rows: Sequence[Row], *, reason: bool = True) -> str:
    names = [row.get("document") or row["source"] for row in rows]
    if reason:
        names = [f"{name} ({row['reason']})" for name, row in zip(names, rows, strict=True)]
    more = f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
