"""The answers of the five analysis types, laid out for reading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chordwise.cli.rendering.documents import encoded
from chordwise.cli.rendering.plain_text import one_line, safe
from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject, JsonValue, objects, strings, text
from chordwise.domain.tasks import AnalysisType

Rows: TypeAlias = Iterator[tuple[str, RenderableType]]

_TEXT_WIDTH = 400
_QUOTE_WIDTH = 280
_CELL_WIDTH = 160
_DATA_WIDTH = 4_000


def laid_out(analysis_type: str, output: JsonObject) -> RenderableType:
    """Return an answer with a label before each part."""
    rows = _LAYOUTS.get(analysis_type, _anything)(output)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(ratio=1)
    for label, part in rows:
        table.add_row(Text(label), part)
    return Padding(table, (0, 0, 0, 2))


def headline(analysis_type: str, output: JsonObject) -> str:
    """Return the answer in one line, for a table of many documents."""
    match analysis_type:
        case AnalysisType.SUMMARY:
            return text(output.get("main_topic"))
        case AnalysisType.CLASSIFICATION:
            return text(output.get("primary_label"))
        case AnalysisType.SENTIMENT:
            return f"{text(output.get('label'))} ({_amount(output.get('score'))})"
        case AnalysisType.REASONING:
            strength = _amount(output.get("argument_strength"))
            return f"{strength}/10: {text(output.get('overall_assessment'))}"
        case _:
            return _extracted(output)


def quote(item: Mapping[str, JsonValue]) -> Text:
    """Return the quote of an item with its place, or that the source does not have it."""
    words = text(item.get("quote"))
    if not words:
        return Text()
    shown = Text(f"“{one_line(words, _QUOTE_WIDTH)}”", style="italic")
    start, end = item.get("start_char"), item.get("end_char")
    if isinstance(start, int) and isinstance(end, int):
        shown.append(f" [{start}–{end}]", style="dim not italic")
    elif item.get("grounded") is False:
        shown.append(" [not found in the document]", style="yellow not italic")
    return shown


def _summary(output: JsonObject) -> Rows:
    yield "Topic", _prose(output.get("main_topic"))
    yield from _listed("Findings", (_finding(item) for item in objects(output.get("key_findings"))))
    yield from _listed("Conclusions", map(_prose, strings(output.get("conclusions"))))


def _finding(item: JsonObject) -> Text:
    """Return a finding and its quote; once only where both are the same."""
    finding, words = text(item.get("finding")), text(item.get("quote"))
    if one_line(finding) == one_line(words):
        return quote(item)
    return Text("\n").join([_prose(finding), quote(item)]) if words else _prose(finding)


def _extraction(output: JsonObject) -> Rows:
    if "data" in output:
        yield "Data", _json(output["data"])
        yield "Evidence", _fields(objects(output.get("evidence")), "path")
    else:
        yield "Found", _fields(objects(output.get("fields")), "item")


def _fields(fields: Iterable[JsonObject], name: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    columns = (
        ("Item", "Value", "Quote", "Confidence") if name == "item" else ("Path", "Quote", "C.")
    )
    for column in columns:
        right = column.startswith("C")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for field in fields:
        value = [_cell(field.get("value") or field.get("status"))] if name == "item" else []
        table.add_row(
            _cell(field.get(name)), *value, quote(field), _of_ten(field.get("confidence"))
        )
    return table


def _classification(output: JsonObject) -> Rows:
    label = Text(one_line(text(output.get("primary_label"))), style="bold")
    label.append(f"  confidence {_amount(output.get('confidence'))}", style="not bold dim")
    yield "Label", label
    if secondary := text(output.get("secondary_label")):
        yield "Second", Text(one_line(secondary))
    yield from _listed("Decided by", map(_feature, objects(output.get("features"))))
    yield from _listed("Uncertain", map(_prose, strings(output.get("uncertainty_factors"))))


def _feature(item: JsonObject) -> Text:
    return Text("  ").join([_cell(item.get("feature")), quote(item)])


def _sentiment(output: JsonObject) -> Rows:
    label = text(output.get("label"))
    style = {"positive": "green", "negative": "red"}.get(label, "bold")
    shown = Text(one_line(label), style=style)
    shown.append(f"  score {_amount(output.get('score'))} of −1…1", style="not bold dim")
    yield "Sentiment", shown
    if emotions := strings(output.get("emotions")):
        yield "Emotions", Text(one_line(", ".join(emotions)))
    yield from _listed("Sentences", map(_sentence, objects(output.get("sentences"))))


def _sentence(item: JsonObject) -> Text:
    return Text(f"{_amount(item.get('score')):>6}  ").append_text(quote(item))


def _reasoning(output: JsonObject) -> Rows:
    yield from _listed("Argument", map(_step, objects(output.get("logical_flow"))))
    yield "Strength", Text(f"{_amount(output.get('argument_strength'))} of 10")
    stored = output.get("evidence_quality")
    evidence = stored if isinstance(stored, dict) else {}
    score = _amount(evidence.get("score"))
    yield "Evidence", Text(f"{score} of 10: ").append_text(_prose(evidence.get("assessment")))
    yield from _listed("Weaknesses", map(_prose, strings(output.get("weaknesses"))))
    yield from _listed("Gaps", map(_prose, strings(output.get("gaps"))))
    yield "Overall", _prose(output.get("overall_assessment"))


def _step(item: JsonObject) -> Text:
    step, words = text(item.get("step")), text(item.get("quote"))
    role = Text(f"{one_line(text(item.get('role')))}: ", style="cyan")
    if one_line(step) == one_line(words):
        return role.append_text(quote(item))
    lines = [role.append_text(_prose(step)), *([quote(item)] if words else [])]
    return Text("\n").join(lines)


def _anything(output: JsonObject) -> Rows:
    yield "Answer", _json(output)


def _json(value: JsonValue) -> Text:
    """Return a value as JSON; of a long one the beginning, and how much there is."""
    whole = safe(encoded(value, indent=2))
    shown = Text(whole[:_DATA_WIDTH])
    if len(whole) > _DATA_WIDTH:
        note = f"\n… the first {_DATA_WIDTH:,} of {len(whole):,} characters; --json shows all."
        shown.append(note, style="yellow")
    return shown


def _listed(label: str, parts: Iterable[Text]) -> Rows:
    """Number the parts; the label stands before the first, and nothing where there is none."""
    for number, part in enumerate(parts, start=1):
        row = Table.grid(padding=(0, 1))
        row.add_column(justify="right", style="dim", no_wrap=True, width=3)
        row.add_column(ratio=1)
        row.add_row(f"{number}.", part)
        yield (label if number == 1 else ""), row


def _prose(value: JsonValue) -> Text:
    return Text(one_line(text(value), _TEXT_WIDTH))


def _cell(value: JsonValue) -> Text:
    shown = value if isinstance(value, str) else encoded(value)
    return Text(one_line(shown, _CELL_WIDTH))


def _of_ten(value: JsonValue) -> str:
    return f"{_amount(value)}/10"


def _amount(value: JsonValue) -> str:
    number = json_values.number(value)
    return "–" if number is None else f"{number:g}"


def _extracted(output: JsonObject) -> str:
    if "data" in output:
        return encoded(output["data"])
    found = [field for field in objects(output.get("fields")) if field.get("value")]
    return "; ".join(f"{text(each.get('item'))}: {text(each.get('value'))}" for each in found)


_LAYOUTS: Mapping[str, Callable[[JsonObject], Rows]] = {
    AnalysisType.SUMMARY: _summary,
    AnalysisType.EXTRACTION: _extraction,
    AnalysisType.CLASSIFICATION: _classification,
    AnalysisType.SENTIMENT: _sentiment,
    AnalysisType.REASONING: _reasoning,
}
