"""Gold files: the truth about documents, written in advance."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from chordwise.domain import items, json_values
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.dates import DateOrder, order_in
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning.feedback_input import parsed
from chordwise.domain.learning.fields import Rule
from chordwise.domain.learning.truths import Truth
from chordwise.errors import ReadError, UsageError
from chordwise.readers import contents, encodings

_WHOLE = ("label", "summary")
_OWN = ("document", "fields", *_WHOLE)
_MEMBERS = (*_OWN, "pages")
_HEADINGS = {"Document": "document", "Label": "label"}
"""The headings of workbooks, and the names of their columns, unless a file has both."""


Unusable: TypeAlias = Mapping[str, str]
"""A `document`, or a line of a file, and the `reason` why its truth cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gold:
    """The truth by document name, in the order of the file.

    In a suite (`is_complete`) a document without an answer counts as wrong. `unusable` are the
    documents or lines whose truth cannot be used, each with the reason.
    """

    name: str
    sha256: str
    truths: Mapping[str, Truth]
    is_complete: bool = False
    unusable: Sequence[Unusable] = ()

    def names_of(self, kind: AnalysisType) -> Sequence[str]:
        """Return the documents for which the file has the truth of this analysis type."""
        return [name for name, truth in self.truths.items() if covers(truth, kind)]


def covers(truth: Truth, kind: AnalysisType) -> bool:
    """Return whether a truth of a gold file covers an analysis type."""
    if analysis_for(kind).label_path:
        return truth.label is not None
    if kind == AnalysisType.EXTRACTION:
        return bool(truth.fields)
    return kind == AnalysisType.SUMMARY and truth.reference is not None


def read(
    path: Path, dates: DateOrder | None = None, unusable: list[Unusable] | None = None
) -> Gold:
    """Read a gold file; `dates` is the order in ambiguous dates of the file and of answers.

    By default it is the order of the file's other dates, if they agree. With `unusable`, an invalid
    line is added to it.

    Raises:
        UsageError: The file cannot be read, contains no truth, or names a document twice.
    """
    file = read_records(path, unusable)
    truths: dict[str, Truth] = {}
    texts = [cell for _, record in file.records for _, cell in json_values.scalars(record)]
    dates = dates or order_in(cell for cell in texts if isinstance(cell, str))
    for line, written in file.records:
        headings = {name: column for name, column in _HEADINGS.items() if column not in written}
        record = {headings.get(name, name): value for name, value in written.items()}
        with skipping(f"{path.name}, line {line}", unusable):
            name = json_values.text(record.get("document")).strip()
            if not name:
                raise file.wrong(line, "there is no “document”.")
            if name in truths:
                raise file.wrong(line, f"“{name}” is on an earlier line too.")
            truths[name] = replace(_truth(file, line, record), dates=dates)
    if not truths and not unusable:
        raise file.wrong(1, "it has no records.")
    return Gold(name=path.name, sha256=file.sha256, truths=truths)


@contextmanager
def skipping(place: str, unusable: list[Unusable] | None) -> Iterator[None]:
    """Add what is wrong at a place to the unusable, instead of raising it."""
    try:
        yield
    except UsageError as error:
        if unusable is None:
            raise
        unusable.append({"document": place, "reason": error.what})


_RULE_OF_FIELD = re.compile(rf":\s*({'|'.join(Rule)})$")
"""The rule in the name of a field: `governing law: contains`."""


def _truth(file: RecordFile, line: int, record: JsonObject) -> Truth:
    label, reference = record.get("label"), record.get("summary")
    written = _fields(file, line, record)
    names = {name: items.without_type(_RULE_OF_FIELD.sub("", name)) for name in written}
    fields = {names[name]: value for name, value in written.items()}
    rules = ((names[name], _RULE_OF_FIELD.search(name)) for name in written)
    for name, value in (("label", label), ("summary", reference)):
        if value is not None and not isinstance(value, str):
            raise file.wrong(line, f"“{name}” is not text.")
    truth = Truth(
        label=json_values.text(label).strip() or None,
        reference=json_values.text(reference).strip() or None,
        fields=fields,
        rules={name: Rule(rule[1]) for name, rule in rules if rule},
        alternatives=True,
        pages={} if file.is_csv else _pages(file, line, record, fields),
    )
    if not any(covers(truth, kind) for kind in AnalysisType):
        raise file.wrong(line, "it has neither a label nor fields nor a summary.")
    return truth


def _fields(file: RecordFile, line: int, record: JsonObject) -> Mapping[str, JsonValue]:
    """Return the fields: of CSV all columns, unless the file has one for a label or a summary.

    An empty cell means that the document has no value.
    """
    if file.is_csv:
        is_other = not record.keys().isdisjoint(_WHOLE)
        others = {} if is_other else {n: v for n, v in record.items() if n not in _OWN}
        return {name: parsed(json_values.text(value)) for name, value in others.items()}
    if unknown := sorted(record.keys() - set(_MEMBERS)):
        raise file.wrong(line, f"“{unknown[0]}” is not one of {', '.join(_MEMBERS)}.")
    fields = record.get("fields", {})
    if not isinstance(fields, dict) or "" in fields:
        raise file.wrong(line, "“fields” must be an object with names.")
    return fields


def _pages(
    file: RecordFile, line: int, record: JsonObject, fields: Mapping[str, JsonValue]
) -> Mapping[str, frozenset[int]]:
    """Return the page numbers of each field's values, given as a number or a list, from 1."""
    entries = record.get("pages", {})
    if not isinstance(entries, dict) or not entries.keys() <= fields.keys():
        raise file.wrong(line, "“pages” must be an object whose names are in “fields”.")
    pages: dict[str, frozenset[int]] = {}
    for name, value in entries.items():
        listed = value if isinstance(value, list) else [value]
        numbers = [number for number in listed if type(number) is int and number > 0]
        if len(numbers) < len(listed):
            raise file.wrong(line, f"“pages” of “{name}” must be page numbers from 1.")
        pages[name] = frozenset(numbers)
    return pages


_LINES = (".jsonl", ".ndjson")
_DELIMITERS = ",;\t|"
_LONGEST_CELL = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFile:
    """A file of records, each with the number of its last line; in CSV all values are text."""

    path: Path
    sha256: str
    is_csv: bool
    records: Sequence[tuple[int, JsonObject]]

    def wrong(self, line: int, what: str) -> UsageError:
        """Return an error about a line of this file."""
        return UsageError(f"{self.path.name}, line {line}: {what}", _HINT)


_MAX_MEGABYTES = 64
_HINT = "docs/evaluation.md shows what such a file looks like."


def content_of(path: Path) -> bytes:
    """Return the content of a regular file of limited size.

    Raises:
        UsageError: It is no such file, or cannot be read.
    """
    try:
        with contents.opened(path, _MAX_MEGABYTES, follow_symlinks=True) as file:
            return file.read()
    except ReadError as error:
        raise UsageError(f"{path} cannot be read: the file {error.what}", _HINT) from error


def read_records(path: Path, unusable: list[Unusable] | None = None) -> RecordFile:
    """Read a file of records; with `unusable`, an invalid line of JSON Lines is added to it.

    Raises:
        UsageError: The file cannot be read, or is neither CSV nor JSON Lines.
    """
    data = content_of(path)
    try:
        text = encodings.decode(data).text
    except ReadError as error:
        raise UsageError(f"{path} is not text.", _HINT) from error
    is_csv = path.suffix.lower() not in _LINES and not text.lstrip().startswith("{")
    try:
        records = list(_of_csv(text) if is_csv else _of_lines(text, path, unusable))
    except csv.Error as error:
        raise UsageError(f"{path} is not valid CSV: {error}.", _HINT) from error
    for number, record in records:
        if not json_values.is_storable(record):
            what = "has characters that cannot be stored, or an invalid number"
            raise UsageError(f"{path}, line {number} {what}.", _HINT)
    return RecordFile(
        path=path, sha256=hashlib.sha256(data).hexdigest(), is_csv=is_csv, records=records
    )


def _of_lines(
    text: str, path: Path, unusable: list[Unusable] | None
) -> Iterator[tuple[int, JsonObject]]:
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        place = f"{path}, line {number}"
        if line.strip():
            with skipping(f"{path.name}, line {number}", unusable):
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise UsageError(f"{place} is not JSON: {error}.", _HINT) from error
                if not isinstance(record, dict):
                    raise UsageError(f"{place} is not a JSON object.", _HINT)
                yield number, json_values.as_object(record)


def _of_csv(text: str) -> Iterator[tuple[int, JsonObject]]:
    csv.field_size_limit(_LONGEST_CELL)
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    # Columns with the same name could not be distinguished.
    names = Counter(name.strip() for name in rows.fieldnames or () if name.strip())
    for name, times in names.most_common(1):
        if times > 1:
            raise csv.Error(f"the header names “{name}” {times} times")
    for row in rows:
        # DictReader stores cells beyond the header under None, and missing cells as None.
        if any(cell.strip() for cell in row.get(None) or ()):
            raise csv.Error(f"line {rows.line_num} has more cells than the header")
        cells = {name.strip(): cell for name, cell in row.items() if name and cell is not None}
        if any(cells.values()):
            yield rows.line_num, json_values.as_object(cells)
