"""Stored results as text: each in full, or many in a table."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from psycopg import Connection
from rich.console import RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from chordwise.domain import json_values
from chordwise.domain.analysis import (
    NO_LABEL,
    AnswerSection,
    display_number,
    headline,
    label_paths,
    sections_of,
)
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.json_values import JsonObject, JsonValue, objects, strings, text, text_of
from chordwise.domain.number_formats import counted, score, share
from chordwise.domain.states import CritiqueOutcome, JobStatus
from chordwise.domain.trust import Trust
from chordwise.relations import results as stored_results
from chordwise.relations.relation import Row
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import PREVIEW, encoded, one_line, safe
from chordwise.rendering.screen import Screen

MAX_RESULTS = 100
MAX_IN_FULL = 10
"""The results that are shown in full, and the documents in a table, unless more are requested."""
_NO_STATES: Mapping[tuple[uuid.UUID, str], str] = {}
_MAX_FLAGS = 5
_HEADLINE_WIDTH = 300


def show(
    screen: Screen,
    connection: Connection,
    selection: stored_results.ResultSelection,
    limit: int | None = None,
    *,
    is_long: bool = False,
) -> int:
    """Show stored results, at most `limit` or a default number; return the number that is shown."""
    results = stored_results.read(connection, selection, limit or MAX_RESULTS)
    states = stored_results.states(connection, [result["job_id"] for result in results])
    rows, shown = limit or MAX_IN_FULL, len(results)
    screen.show(*render(results, states, is_long=is_long, max_rows=rows))
    if not is_long and len(_extractions(results)) > rows:
        selection, shown = replace(selection, types=(AnalysisType.EXTRACTION,)), rows
    elif shown < (limit or MAX_RESULTS):
        return shown
    words = stored_results.count_in_words(connection, selection, shown)
    if words != f"{shown:,}":
        rest = "`chordwise web`, results --limit N, or `chordwise export`"
        screen.info(f"Showing {shown:,} of {words} results; for more: {rest}")
    return shown


def render(
    results: Sequence[Row],
    states: Mapping[tuple[uuid.UUID, str], str] = _NO_STATES,
    *,
    is_long: bool = False,
    max_rows: int = MAX_IN_FULL,
) -> Iterator[RenderableType]:
    """Return extractions of several documents as tables, other results in full or as a table.

    `states` are those of the fields, by job and name. With `is_long` all results are in full. The
    built-in model is named first.
    """
    if any(not result["language_model"] for result in results):
        yield Text(PREVIEW, style="yellow")
    extractions = [] if is_long else _extractions(results)[:max_rows]
    if extractions:
        yield from _grids(extractions, states)
        documents = {result["document_id"] for result in extractions}
        results = [
            result
            for result in results
            if result["document_id"] in documents
            and result["analysis_type"] != AnalysisType.EXTRACTION
        ]
    if len(results) > MAX_IN_FULL and not is_long:
        yield _table(results)
    else:
        for result in results:
            yield from _in_full(result)


def _extractions(results: Sequence[Row]) -> Sequence[Row]:
    """Return the extractions if they are of several documents."""
    extractions = [
        result for result in results if result["analysis_type"] == AnalysisType.EXTRACTION
    ]
    return extractions if len({result["document_id"] for result in extractions}) > 1 else []


def _in_full(result: Row) -> Iterator[RenderableType]:
    yield Rule(_heading(result), align="left", characters="─", style="dim")
    yield Text(f"  {measures(result)}", style="dim")
    if result["review_reason"]:
        yield Text(f"  Review: {one_line(result['review_reason'])}", style="yellow")
    if result["transcribed_by"]:
        yield Text(f"  Scanned pages read by {one_line(result['transcribed_by'])}", style="dim")
    yield from _suspicious(result["flags"])
    for chunk in objects(result["failed_chunks"]):
        start, end, code = (chunk.get(name) for name in ("start_char", "end_char", "error_code"))
        yield Text(f"  Not covered: characters {start}–{end} ({code})", style="yellow")
    for sentence in _missing(result):
        yield Text(f"  {one_line(sentence, _HEADLINE_WIDTH)}", style="yellow")
    for check in objects(result["failed_checks"]):
        values = [(name, check.get(name)) for name in ("found", "expected")]
        listed = ", ".join(f"{name} {text(value)}" for name, value in values if value is not None)
        what = f"{text(check.get('path'))}: {text(check.get('problem'))}"
        what = one_line(f"{what} ({listed})" if listed else what, _HEADLINE_WIDTH)
        yield Text(f"  Check failed: {what}", style="yellow")
    yield answer(result["analysis_type"], result["output"])
    yield from _critique(result["critique"] or {})
    yield Text()


def _missing(result: Row, *, losses: bool = False) -> Sequence[str]:
    """Return sentences about the missing rows of a result, or only about rows that are lost."""
    if not result["missing_rows"]:
        return ()
    from chordwise.domain import missing_rows  # noqa: PLC0415 - loads the layout of texts

    missing = missing_rows.from_json(result["missing_rows"])
    return missing_rows.sentences(missing_rows.losses(missing) if losses else missing)


def _suspicious(value: JsonValue) -> Iterator[RenderableType]:
    if not value:
        return
    from chordwise.domain import document_flags  # noqa: PLC0415 - loads all cues

    flags = document_flags.from_json(value)
    for flag in flags[:_MAX_FLAGS]:
        kind, place = flag.kind.replace("_", " "), f"characters {flag.start_char}–{flag.end_char}"
        excerpt = f": “{one_line(flag.excerpt)}”" if flag.excerpt else ""
        yield Text(f"  Suspicious: {kind}, {place}{excerpt}", style="yellow")
    if len(flags) > _MAX_FLAGS:
        rest = f"  {len(flags) - _MAX_FLAGS} more suspicious passages; use --json for all."
        yield Text(rest, style="yellow")


def _critique(critique: JsonObject) -> Iterator[RenderableType]:
    if critique.get("outcome") in (CritiqueOutcome.KEPT, CritiqueOutcome.FAILED):
        outcome, reason = text(critique.get("outcome")), text(critique.get("reason"))
        yield Text(f"  Critique {outcome}: {one_line(reason, _HEADLINE_WIDTH)}", style="yellow")
        for violation in objects(critique.get("violations")):
            problem = one_line(text(violation.get("problem")), _HEADLINE_WIDTH)
            yield Text(f"  {one_line(text(violation.get('path')))}: {problem}", style="yellow")


def _heading(result: Row) -> Text:
    heading = layouts.shortened([result["source"]])[0]
    heading.stylize("bold")
    heading.append(f" · {result['analysis_type']}", style="not bold")
    problem = [] if result["status"] == JobStatus.SUCCEEDED else [result["status"]]
    for mark in (*problem, *_marks(result)):
        heading.append(f" · {mark}", style="yellow")
    return heading


def measures(result: Row) -> str:
    """Return the confidence and quality of a result, and its model, in one line."""
    agreement, outcome = result["agreement"], (result["critique"] or {}).get("outcome")
    is_well = outcome in (CritiqueOutcome.PASSED, CritiqueOutcome.REVISED)
    built_in = "" if result["language_model"] else " (built in)"
    parts = [
        f"confidence {result['confidence']:.2f}",
        f"quality {score(result['quality'])}",
        f"coverage {share(result['coverage'])}",
        "" if agreement is None else f"agreement {share(agreement)}",
        f"critique {outcome}" if is_well else "",
        f"{result['provider']}/{result['model']}{built_in}",
        "reused" if result["reused"] else "",
    ]
    return one_line(" · ".join(filter(None, parts)))


def _table(results: Sequence[Row]) -> Table:
    table = layouts.empty()
    table.add_column("Document", max_width=layouts.NAME_WIDTH, overflow="fold")
    types = {result["analysis_type"] for result in results}
    if len(types) > 1:
        table.add_column("Type", no_wrap=True)
    table.add_column("Conf.", justify="right", no_wrap=True)
    table.add_column("Answer", ratio=1)
    documents = layouts.shortened([result["source"] for result in results])
    for document, result in zip(documents, results, strict=True):
        kind = [result["analysis_type"]] if len(types) > 1 else []
        answer = Text(one_line(headline(result["analysis_type"], result["output"]), 140))
        if result["status"] != JobStatus.SUCCEEDED:
            reason = "".join(f": {one_line(words)}" for words in _missing(result, losses=True))
            answer.append(f" ({result['status']}{reason.removesuffix('.')})", style="yellow")
        for mark in _marks(result):
            answer.append(f" ({mark})", style="yellow")
        table.add_row(document, *kind, f"{result['confidence']:.2f}", answer)
    return table


def _marks(result: Row) -> Iterator[str]:
    if result["nothing_found"]:
        yield "nothing found"
    if result["corrected"]:
        yield "corrected"
    if failed := objects(result["failed_checks"]):
        yield f"{counted(len(failed), 'check')} failed"
    if result["needs_review"]:
        yield "needs review"


_VALUE_WIDTH = 80
_MARKS = {
    Trust.CHECK: ("?", "yellow", "to check"),
    Trust.UNREAD: ("–", "dim", "not known"),
    Trust.SILENT: ("∅", "dim", "not mentioned"),
    Trust.CERTIFIED: ("✓", "green", "accepted"),
    Trust.CORRECTED: ("✎", "cyan", "corrected"),
    Trust.CONFIRMED: ("✓", "green", "accepted"),
}


def _grids(
    results: Sequence[Row], states: Mapping[tuple[uuid.UUID, str], str]
) -> Iterator[RenderableType]:
    """Yield a table for each list of fields, with a line for each document, and the legend."""
    from chordwise.domain.learning import fields  # noqa: PLC0415 - loads extraction

    alike: dict[tuple[str, ...], list[Row]] = {}
    for result in results:
        alike.setdefault(tuple(fields.names(result["output"])), []).append(result)
    marks: set[Trust] = set()
    for names, group in alike.items():
        rows = []
        for result in group:
            cells = [Text(one_line(PurePath(result["source"]).name))]
            for name in names:
                value = _values(result["output"], name)
                state = states.get((result["job_id"], name))
                trust = Trust(state or (Trust.SUPPORTED if value else Trust.SILENT))
                marks.add(trust)
                mark, style, _ = _MARKS.get(trust, ("", "", ""))
                cells.append(Text(f"{mark} {value}".strip(), style))
            rows.append(cells)
        columns = ("Document", *(name.removeprefix("/") for name in names))
        yield layouts.Lines(columns, rows, _MARKS[Trust.CHECK][0])
    legend = (f"{mark} {word}" for trust, (mark, _, word) in _MARKS.items() if trust in marks)
    yield Text(f"{'  '.join(dict.fromkeys(legend))}\n", style="dim")


def _values(output: JsonObject, name: str) -> str:
    """Return the values of a field in a cell; for rows, their number."""
    from chordwise.domain.learning import fields  # noqa: PLC0415 - loads extraction

    listed = json_values.at(output, f"/data{name}") if name.startswith("/") else None
    if isinstance(listed, list) and any(isinstance(row, dict) for row in listed):
        return counted(len(listed), "row")
    entries = fields.entries(output, name)
    values = "; ".join(text_of(entry.value) or "" for entry in entries if entry.key)
    return one_line(values, _VALUE_WIDTH)


_TEXT_WIDTH = 400
_QUOTE_WIDTH = 280
_CELL_WIDTH = 160
_DATA_WIDTH = 4_000
_MAX_ELEMENTS = 200
_STYLES = {"positive": "green", "negative": "red"}


def answer(analysis_type: str, output: JsonObject) -> RenderableType:
    """Return an answer with a label before each part."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(ratio=1)
    for section in sections_of(analysis_type):
        for number, part in enumerate(_parts(section, output)):
            table.add_row(Text("" if number else section.label), part)
    return Padding(table, (0, 0, 0, 2))


def _parts(section: AnswerSection, output: JsonObject) -> Iterator[RenderableType]:
    """Yield the rows of a section; none if the output has no such value."""
    value, is_label = json_values.at(output, section.path), section.path in label_paths()
    if isinstance(value, list):
        first = value[:_MAX_ELEMENTS]
        if objects(first) and not section.members:
            yield _fields(objects(first))
        elif section.is_joined:
            yield from map(_prose, filter(None, [", ".join(strings(first))]))
        else:
            parts = (_element(element, section.members) for element in first)
            yield from map(_numbered, itertools.count(1), parts)
        if len(value) > _MAX_ELEMENTS:
            note = f"… the first {_MAX_ELEMENTS:,} of {len(value):,}; use --json for all."
            yield Text(note, style="yellow")
    elif isinstance(value, dict):
        yield _json(value)
    elif value is not None or is_label:
        prose = _prose(NO_LABEL if value is None else value)
        if is_label:
            prose.stylize(_STYLES.get(prose.plain, "bold"))
        yield prose.append(section.note)


def _element(item: JsonValue, members: Sequence[str]) -> Text:
    """Return an element of a list: its members, and its quote if that differs from the last."""
    if not isinstance(item, dict):
        return _prose(item)
    *before, last = members
    line = Text.assemble(*((f"{one_line(text(item.get(name)))}: ", "cyan") for name in before))
    if not isinstance(statement := item.get(last), str):
        return line.append(f"{display_number(statement):>6}  ").append_text(quote(item))
    words = text(item.get("quote"))
    if one_line(statement) == one_line(words):
        return line.append_text(quote(item))
    line.append_text(_prose(statement))
    return line.append("\n").append_text(quote(item)) if words else line


def quote(item: Mapping[str, JsonValue]) -> Text:
    """Return a quote with its place, and a note if it is not found or lacks the value."""
    words = text(item.get("quote"))
    if not words:
        return Text()
    line = Text(f"“{one_line(words, _QUOTE_WIDTH)}”", style="italic")
    if place := text(item.get("place")):
        line.append(f" {one_line(place)}", style="not italic")
    start, end = item.get("start_char"), item.get("end_char")
    if isinstance(start, int) and isinstance(end, int):
        line.append(f" [{start}–{end}]", style="dim not italic")
    elif item.get("grounded") is False:
        line.append(" [not found in the document]", style="yellow not italic")
    mark = item.get("value_in_quote")
    if mark is False or (isinstance(mark, dict) and not all(mark.values())):
        from chordwise.domain import value_in_quote  # noqa: PLC0415 - loads all units

        names = ", ".join(value_in_quote.values_not_in_quotes({"item": dict(item)}))
        outside = f" [not in the quote: {one_line(names, _QUOTE_WIDTH)}]"
        line.append(outside, style="yellow not italic")
    return line


def _fields(fields: Sequence[JsonObject]) -> Table:
    is_item = "item" in fields[0]
    columns = ("Item", "Value", "Quote", "Confidence") if is_item else ("Path", "Quote", "C.")
    rows: list[list[str | Text]] = []
    for field in fields:
        value = [_cell(field.get("value") or field.get("status"))] if is_item else []
        confidence = f"{display_number(field.get('confidence'))}/10"
        if field.get("corrected") is True:
            confidence = "corrected"
        rows.append(
            [_cell(field.get("item" if is_item else "path")), *value, quote(field), confidence]
        )
    return layouts.folded(columns, rows, right=columns[-1:], header_style="dim")


def _json(value: JsonValue) -> Text:
    whole = safe(encoded(value, indent=2))
    excerpt = Text(whole[:_DATA_WIDTH])
    if len(whole) > _DATA_WIDTH:
        note = f"\n… the first {_DATA_WIDTH:,} of {len(whole):,} characters; use --json for all."
        excerpt.append(note, style="yellow")
    return excerpt


def _numbered(number: int, part: Text) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_column(justify="right", style="dim", no_wrap=True, width=3)
    row.add_column(ratio=1)
    row.add_row(f"{number}.", part)
    return row


def _prose(value: JsonValue) -> Text:
    return _cell(value, _TEXT_WIDTH)


def _cell(value: JsonValue, width: int = _CELL_WIDTH) -> Text:
    cell = value if isinstance(value, str) else encoded(value)
    return Text(one_line(cell, width))
