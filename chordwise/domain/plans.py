"""Plans: what to count over an answer table, from a model or a sentence in a small grammar.

A plan names columns and values only; `relations/counts.py` turns it into SQL.
"""

from __future__ import annotations

import re
import unicodedata
from calendar import monthrange
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from enum import StrEnum

from pydantic import TypeAdapter

from chordwise.domain import identifiers, json_values, schemas
from chordwise.domain.items import ColumnKind
from chordwise.domain.json_values import JsonObject
from chordwise.domain.quantities import currencies_of, parse_single
from chordwise.domain.typed_values import TRUTHS
from chordwise.errors import UsageError

_MAX_GROUPS = 3
_MAX_CONDITIONS = 10
_MAX_ROWS = 1_000
NUMBERS = (ColumnKind.NUMBER, ColumnKind.NUMBERS, ColumnKind.MONEY, ColumnKind.SCORE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d")  # weeks and others are not known to PostgreSQL
_MONTH = re.compile(r"\d{4}-\d\d")
_YEAR = re.compile(r"\d{4}")
_DATES = (ColumnKind.DATE, ColumnKind.DATES)


class Aggregate(StrEnum):
    """What is computed of the matching documents, or rows of a list."""

    COUNT = "count"
    LIST = "list"
    SUM = "sum"
    AVERAGE = "average"
    MINIMUM = "minimum"
    MAXIMUM = "maximum"


class Operator(StrEnum):
    """How a column is compared; texts without regard to case."""

    IS = "is"
    IS_NOT = "is not"
    CONTAINS = "contains"
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="
    MENTIONED = "is mentioned"
    SILENT = "is silent"

    @property
    def has_value(self) -> bool:
        """Whether the column is compared with a value."""
        return self not in (Operator.MENTIONED, Operator.SILENT)


_OF_ORDER = (Operator.LESS, Operator.AT_MOST, Operator.GREATER, Operator.AT_LEAST)


class Part(StrEnum):
    """The part of a date by which documents are grouped."""

    WHOLE = ""
    YEAR = "year"
    MONTH = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition; numbers are decimal, dates as in ISO 8601, and amounts may have a currency."""

    column: str
    operator: Operator
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """A column by whose values the result is divided."""

    column: str
    part: Part = Part.WHOLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to compute over a table; `column` is that of the measure, empty for documents.

    Of the groups, the `limit` with the highest results are shown (the lowest, if `is_ascending`).
    `sentence` is the answer in words, with `{result}` and `{documents}` for figures. With `paths`
    only the documents at these paths and below them are read.
    """

    table: str
    measure: Aggregate = Aggregate.COUNT
    column: str = ""
    where: tuple[Condition, ...] = ()
    group_by: tuple[Grouping, ...] = ()
    limit: int | None = None
    is_ascending: bool = False
    sentence: str = ""
    paths: tuple[str, ...] = ()

    @property
    def columns(self) -> Sequence[str]:
        """The columns on which the result depends, each once."""
        names = [condition.column for condition in self.where]
        names += [group.column for group in self.group_by]
        return tuple(dict.fromkeys((*names, *([self.column] if self.column else ()))))

    @property
    def places(self) -> Sequence[str]:
        """The paths to show: a path may be among `paths` in several spellings."""
        return [path for path in self.paths if path.startswith("/")] or self.paths


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueTable:
    """A table whose columns a plan can use; `rows` is the list, if its rows are no documents.

    `samples` are a few frequent values of a column.
    """

    name: str
    kinds: Mapping[str, ColumnKind]
    rows: str = ""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, Sequence[str]] = field(default_factory=dict)


def check(plan: Plan, tables: Sequence[CatalogueTable]) -> CatalogueTable:
    """Check that a plan fits its table, and return that.

    Raises:
        UsageError: A table or column does not exist, or a comparison does not fit its column.
    """
    table = _table(plan.table, tables)
    kinds = table.kinds
    for name in plan.columns:
        if name not in kinds:
            raise UsageError(
                f"The table {table.name} has no column “{name}”.",
                f"{_similar(name, kinds)}Its columns: {', '.join(kinds)}.",
            )
    _check_size(plan)
    _check_measure(plan, kinds)
    for condition in plan.where:
        _check_condition(condition, kinds[condition.column])
    for group in plan.group_by:
        if group.part and kinds[group.column] not in _DATES:
            raise UsageError(f"“{group.column}” is not a date, so it has no {group.part}.")
        if kinds[group.column] is ColumnKind.JSON:
            raise UsageError(f"“{group.column}” has whole objects, which cannot be grouped.")
    return table


def _check_size(plan: Plan) -> None:
    if len(plan.group_by) > _MAX_GROUPS or len(plan.where) > _MAX_CONDITIONS:
        raise UsageError(f"At most {_MAX_GROUPS} groups and {_MAX_CONDITIONS} conditions.")
    if plan.limit is not None and not 1 <= plan.limit <= _MAX_ROWS:
        raise UsageError(f"“{plan.limit}” is not a number of rows.", f"1 to {_MAX_ROWS}.")


def _table(name: str, tables: Sequence[CatalogueTable]) -> CatalogueTable:
    for table in tables:
        if table.name == name:
            return table
    names = [table.name for table in tables]
    raise UsageError(
        f"There is no table “{name}”.",
        f"{_similar(name, names)}The tables: {', '.join(names) or 'none'}.",
    )


def _similar(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, list(names), n=3)
    return f"Did you mean {' or '.join(near)}? " if near else ""


def _check_measure(plan: Plan, kinds: Mapping[str, ColumnKind]) -> None:
    if plan.measure is Aggregate.COUNT or (plan.measure is Aggregate.LIST and not plan.column):
        return
    if not plan.column:
        raise UsageError(f"“{plan.measure}” needs a column.", "Example: sum annual_fee")
    kind, is_number = kinds[plan.column], kinds[plan.column] in NUMBERS
    has_order = is_number or kind in _DATES
    is_arithmetic = plan.measure in (Aggregate.SUM, Aggregate.AVERAGE)
    if plan.measure is not Aggregate.LIST and not (is_number if is_arithmetic else has_order):
        raise UsageError(
            f"The {plan.measure} of “{plan.column}” cannot be computed: it is {kind}.",
            "Numbers, amounts of money and, for minimum and maximum, dates can be measured.",
        )


def _check_condition(condition: Condition, kind: ColumnKind) -> None:
    operator, name = condition.operator, condition.column
    if not operator.has_value:
        return
    if kind is ColumnKind.JSON and operator is not Operator.CONTAINS:
        raise UsageError(f"“{name}” has whole objects: only “contains” compares them.")
    if operator is Operator.CONTAINS:
        return
    is_number, is_date = kind in NUMBERS, kind in _DATES
    if operator in _OF_ORDER and not (is_number or is_date):
        raise UsageError(f"“{name}” is {kind}, which has no order.", "Use “is” or “contains”.")
    if is_number:
        amount_of(condition)
    if is_date:
        days_of(condition)
    if kind is ColumnKind.BOOLEAN and condition.value.lower() not in TRUTHS:
        raise UsageError(f"“{name}” is yes or no, not “{condition.value}”.")


_CURRENCY = re.compile(r"[A-Z]{3}")
_THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?")
_AMBIGUOUS = re.compile(r"-?[1-9]\d{0,2}\.\d{3}")  # ten, or ten thousand
_MAX_EXPONENT = 100  # within the numbers of PostgreSQL


def amount_of(condition: Condition) -> tuple[Decimal, str]:
    """Return the number of a condition, and its currency, if any.

    Raises:
        UsageError: The value is not a number, or its sign is that of several currencies.
    """
    written = _CURRENCY.search(condition.value)
    figure = _CURRENCY.sub("", condition.value, count=1).strip()
    sign = next((mark for mark in figure if not mark.isalnum() and currencies_of(mark)), "")
    figure = figure.replace(sign, "", 1).strip()
    currencies = sorted({written[0]} if written else currencies_of(sign))
    currencies.sort(key=lambda code: code != "USD")
    if len(currencies) > 1:
        raise UsageError(
            f"“{sign}” can be {', '.join(currencies[:3])} or another currency.",
            f"Write its code: {currencies[0]} {figure}.",
        )
    if _THOUSANDS.fullmatch(figure):
        figure = figure.replace(",", "")
    try:
        number = Decimal(figure)
    except InvalidOperation:
        scaled = parse_single(f"USD {figure}")  # a scale, such as k, belongs to an amount of money
        number = scaled.number if scaled and scaled.power else Decimal("NaN")
    if _AMBIGUOUS.fullmatch(figure):
        small, large = f"{number.normalize():f}", figure.replace(".", "")
        raise UsageError(
            f"“{condition.value}” can be {small} or {large}.", f"Write {small} or {large}."
        )
    if not number.is_finite() or abs(number.adjusted()) > _MAX_EXPONENT:
        raise UsageError(
            f"“{condition.value}” is not a number to compare {condition.column} with.",
            "Examples: 10000, 12.5, 10k, EUR 10000",
        )
    return number, next(iter(currencies), "")


def days_of(condition: Condition) -> tuple[date, date]:
    """Return the first and the last day of the date, month or year of a condition.

    Raises:
        UsageError: The value is none of them.
    """
    value = condition.value
    try:
        if _DATE.fullmatch(value):
            return date.fromisoformat(value), date.fromisoformat(value)
        if _MONTH.fullmatch(value):
            first = date.fromisoformat(f"{value}-01")
            return first, first.replace(day=monthrange(first.year, first.month)[1])
        if _YEAR.fullmatch(value):
            return date(int(value), 1, 1), date(int(value), 12, 31)
    except ValueError:
        pass
    raise UsageError(
        f"“{value}” is not a date to compare {condition.column} with.",
        "Examples: 2026-01-31, 2026-01, 2026",
    )


# The grammar: count contracts by governing_law where annual_fee > 10000 and term is silent
_WORDS = re.compile(r'"([^"]*)"|“([^”]*)”|(<=|>=|<|>|=|!=|,)|([^\s,<>=!"“”]+)')
_MEASURES = {
    "count": Aggregate.COUNT,
    "number": Aggregate.COUNT,
    "list": Aggregate.LIST,
    "show": Aggregate.LIST,
    "sum": Aggregate.SUM,
    "total": Aggregate.SUM,
    "average": Aggregate.AVERAGE,
    "avg": Aggregate.AVERAGE,
    "mean": Aggregate.AVERAGE,
    "min": Aggregate.MINIMUM,
    "minimum": Aggregate.MINIMUM,
    "max": Aggregate.MAXIMUM,
    "maximum": Aggregate.MAXIMUM,
}
_OPERATORS = {
    "=": Operator.IS,
    "is": Operator.IS,
    "!=": Operator.IS_NOT,
    "is not": Operator.IS_NOT,
    "contains": Operator.CONTAINS,
    "<": Operator.LESS,
    "before": Operator.LESS,
    "below": Operator.LESS,
    "<=": Operator.AT_MOST,
    ">": Operator.GREATER,
    "after": Operator.GREATER,
    "above": Operator.GREATER,
    ">=": Operator.AT_LEAST,
    "is silent": Operator.SILENT,
    "is missing": Operator.SILENT,
    "is not mentioned": Operator.SILENT,
    "is mentioned": Operator.MENTIONED,
    "is not silent": Operator.MENTIONED,
}
_CLAUSES = ("by", "where", "top", "bottom")
GRAMMAR = (
    "“count TABLE by COLUMN where COLUMN is VALUE and COLUMN > NUMBER”, "
    "“list TABLE where COLUMN is silent”, “sum COLUMN of TABLE by year of COLUMN”"
)
_HINT = f"Connect one (docs/models.md), or ask like this: {GRAMMAR}."


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    is_quoted: bool = False

    def __str__(self) -> str:
        return "" if self.is_quoted else self.text.lower()


def parse(sentence: str, tables: Sequence[CatalogueTable]) -> Plan:
    """Return the plan of a sentence in the grammar; names are matched as words.

    Raises:
        UsageError: The sentence is not in the grammar, or a name fits no column or several.
    """
    clauses = _clauses(map(_word, _WORDS.finditer(sentence)))
    head = clauses[""]
    measure = _MEASURES.get(str(head[0])) if head else None
    if measure is None:
        raise UsageError("This question needs a language model.", _HINT)
    column_words, table_words = _head(head[1:], measure)
    names = [table.name for table in tables]
    table = _table(_resolve(table_words, names, "table"), tables)
    ordered = clauses.get("top") or clauses.get("bottom")
    return Plan(
        table=table.name,
        measure=measure,
        column=_resolve(column_words, table.kinds, "column") if column_words else "",
        where=tuple(_condition(part, table) for part in _split(clauses.get("where", []), "and")),
        group_by=tuple(_groups(clauses.get("by", []), table)),
        limit=_limit(ordered) if ordered else None,
        is_ascending="bottom" in clauses,
    )


def is_in_grammar(sentence: str) -> bool:
    """Return whether a sentence begins as those of the grammar do."""
    first, _, _ = sentence.strip().partition(" ")
    return first.lower() in _MEASURES


def _word(match: re.Match[str]) -> _Word:
    quoted = match[1] if match[1] is not None else match[2]
    return _Word(quoted, is_quoted=True) if quoted is not None else _Word(match[3] or match[4])


def _clauses(words: Iterable[_Word]) -> dict[str, list[_Word]]:
    """Return the words after each word that begins a clause; those before the first under ``."""
    clauses: dict[str, list[_Word]] = {"": []}
    name = ""
    for word in words:
        if str(word) in _CLAUSES:
            name = str(word)
            if name in clauses:
                raise UsageError(f"There are two clauses “{name}”.", "Join conditions by “and”.")
            clauses[name] = []
        else:
            clauses[name].append(word)
    return clauses


def _head(words: Sequence[_Word], measure: Aggregate) -> tuple[Sequence[_Word], Sequence[_Word]]:
    """Return the words of the column and of the table."""
    of = [index for index, word in enumerate(words) if str(word) in ("of", "in", "from")]
    if of:
        return words[: of[-1]], words[of[-1] + 1 :]
    return ((), words) if measure in (Aggregate.COUNT, Aggregate.LIST) else (words, ())


def _resolve(words: Sequence[_Word], names: Iterable[str], what: str) -> str:
    """Return the name that the words spell; one of which they are a part, if it is the only one."""
    known = list(names)
    said = " ".join(word.text for word in words)
    key = identifiers.sql_identifier(said) if said else ""
    if not words and len(known) == 1:
        return known[0]
    fitting = [key] if key in known else [name for name in known if key and key in name]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(
            f"“{said}” can be {' or '.join(fitting)}.", f"Ask again with one {what} by its name."
        )
    raise UsageError(
        f"No {what} is called “{said}”.",
        f"{_similar(key, known)}The {what}s: {', '.join(known) or 'none'}.",
    )


def _split(words: Iterable[_Word], *separators: str) -> Iterator[list[_Word]]:
    part: list[_Word] = []
    for word in words:
        if str(word) in separators:
            yield part
            part = []
        else:
            part.append(word)
    if part:
        yield part


def _groups(words: Sequence[_Word], table: CatalogueTable) -> Iterator[Grouping]:
    for part in _split(words, ",", "and"):
        is_part = len(part) > 2 and str(part[0]) in ("year", "month") and str(part[1]) == "of"  # noqa: PLR2004 - year of COLUMN
        name = _resolve(part[2:] if is_part else part, table.kinds, "column")
        yield Grouping(column=name, part=Part(str(part[0])) if is_part else Part.WHOLE)


def _condition(words: Sequence[_Word], table: CatalogueTable) -> Condition:
    for index in range(1, len(words)):
        for count in (3, 2, 1):
            operator = _OPERATORS.get(" ".join(map(str, words[index : index + count])))
            if operator is None:
                continue
            values = words[index + count :]
            if "or" in map(str, values):
                raise UsageError("Conditions cannot be joined by “or”.", "Quote a text with “or”.")
            value = " ".join(word.text for word in values)
            if operator.has_value == bool(value):
                name = _resolve(words[:index], table.kinds, "column")
                return Condition(column=name, operator=operator, value=value)
    said = " ".join(word.text for word in words)
    raise UsageError(f"“{said}” is not a condition.", _HINT)


def _limit(words: Sequence[_Word]) -> int:
    text = words[0].text
    if not text.isdecimal() or not 1 <= int(text) <= _MAX_ROWS:
        raise UsageError(f"“{text}” is not a number of rows.", f"1 to {_MAX_ROWS}.")
    return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A plan of a model, what no column has (`missing`), and words that fit several columns."""

    plan: Plan
    missing: Sequence[str] = ()
    ambiguous: Sequence[tuple[str, Sequence[str]]] = ()


def schema_for(tables: Sequence[CatalogueTable]) -> JsonObject:
    """Return the JSON Schema of the plans that a model can propose."""
    names = list(dict.fromkeys(name for table in tables for name in table.kinds))
    column = schemas.one_of(names)
    condition = schemas.closed(
        {
            "column": column,
            "operator": schemas.one_of(tuple(Operator)),
            "value": schemas.string("Number, date (2026-01-31), true, false or text; or empty."),
        }
    )
    group = schemas.closed({"column": column, "part": schemas.one_of(tuple(Part))})
    words = schemas.closed({"words": schemas.string(), "columns": schemas.array(column)})
    return schemas.closed(
        {
            "table": schemas.one_of([table.name for table in tables]),
            "missing": schemas.array(schemas.string("What is asked about, and no column has.")),
            "ambiguous": schemas.array(words),
            "measure": schemas.one_of(tuple(Aggregate)),
            "column": schemas.one_of(["", *names]),
            "where": schemas.array(condition),
            "group_by": schemas.array(group),
            "limit": {"type": ["integer", "null"]},
            "is_ascending": {"type": "boolean"},
            "sentence": schemas.string("The answer, with {result} and {documents} for figures."),
        }
    )


_PLAN = TypeAdapter(Plan)


def proposal_from(answer: JsonObject) -> Proposal:
    """Return the proposal in an answer that fits `schema_for`."""
    plan = _PLAN.validate_python(answer)
    limit = None if plan.limit is None else min(plan.limit, _MAX_ROWS)
    ambiguous = [
        (json_values.text(words["words"]), json_values.strings(words["columns"]))
        for words in json_values.objects(answer["ambiguous"])
    ]
    return Proposal(
        plan=replace(plan, limit=limit),
        missing=[words for words in json_values.strings(answer["missing"]) if words],
        ambiguous=[(words, columns) for words, columns in ambiguous if len(columns) > 1],
    )


def catalogue_in_words(tables: Sequence[CatalogueTable]) -> str:
    """Return the tables with their columns, as a prompt shows them."""
    described: list[str] = []
    for table in tables:
        unit = f" (a list: each row is one of the {table.rows} of a document)" if table.rows else ""
        lines = [f"Table {table.name}{unit}"]
        for name, kind in table.kinds.items():
            samples = ", ".join(f"“{value}”" for value in table.samples.get(name, ()))
            about = table.descriptions.get(name, "")
            parts = [f"- {name}: {kind}", about, samples and f"such as {samples}"]
            lines.append("; ".join(filter(None, parts)))
        described.append("\n".join(lines))
    return "\n\n".join(described)


def in_words(plan: Plan, schema: str) -> str:
    """Return a plan as a line that a person can check."""
    unit = plan.column or "documents"
    parts = [f"{schema}.{plan.table}", f"{plan.measure} {unit}"]
    names = [
        f"{group.part} of {group.column}" if group.part else group.column for group in plan.group_by
    ]
    parts += [f"by {', '.join(names)}"] if names else []
    conditions = [
        f"{c.column} {c.operator} {' '.join(c.value.split())[:_MAX_SHOWN]}".strip()
        for c in plan.where
    ]
    parts += [f"where {' and '.join(conditions)}"] if conditions else []
    order = "lowest" if plan.is_ascending else "highest"
    if plan.measure is Aggregate.LIST and not plan.column:
        order = "first"
    parts += [f"the {plan.limit} {order}"] if plan.limit else []
    parts += [f"below {', '.join(plan.places)}"] if plan.paths else []
    return " · ".join(parts)


_FIGURE = re.compile(r"\d[\d,.]*")
_MAX_SHOWN = 200
# Words and signs beside a figure that make another one of it.
_SCALE = re.compile(
    r"%|‰|\b(?:minus|percent|per cent|prozent|hundreds?|thousands?|[mb]illions?|dozens?|mio|mrd"
    r"|tausend|half|twice|double|doppelt|times|all but|[km])\b",
    re.IGNORECASE,
)
_ALONE = re.compile(r"(?<![^\s(]){(?:result|documents)}(?![^\s.,;:!?)]|[.,]\S)")


def sentence_of(plan: Plan, result: str, documents: int) -> str:
    """Return the sentence with its figures; empty if it states others than those of conditions."""
    template = plan.sentence
    stated = set(_FIGURE.findall(template))
    permitted = {figure for condition in plan.where for figure in _FIGURE.findall(condition.value)}
    has_other_figure = (
        stated - permitted
        or _SCALE.search(template)
        or any(unicodedata.category(character) in ("No", "Nl") for character in template)
    )
    placeholders = sorted(_ALONE.findall(template))
    if has_other_figure or placeholders not in (["{result}"], ["{documents}", "{result}"]):
        return ""
    filled = template.replace("{result}", result).replace("{documents}", f"{documents:,}")
    return "" if "{" in filled else filled
