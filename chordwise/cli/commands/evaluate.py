"""Quality: Compare results with the right answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Model, ScopeOptions
from chordwise.domain.dates import DateOrder
from chordwise.domain.learning.measures import Measure
from chordwise.domain.number_formats import counted, interval
from chordwise.embedded.home import Level
from chordwise.errors import ExitCode, UsageError
from chordwise.pipeline.learning import evaluation, gold
from chordwise.relations.relation import Row
from chordwise.rendering import layouts, live
from chordwise.rendering.plain_text import one_line
from chordwise.rendering.run_waits import RunWatch
from chordwise.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """The options of the command: the right answers, and the results to compare with them."""

    gold_file: Annotated[
        Path | None,
        typer.Option(
            "--gold", metavar="FILE", help="CSV or JSONL file of right answers. Default: feedback."
        ),
    ] = None
    dates: Annotated[
        DateOrder | None, typer.Option(help="The order in dates such as 3/1/03, with --gold.")
    ] = None
    suite: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Ask a model about labelled documents and compare."),
    ] = None
    model: Model = None
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Maximum documents for each question of a suite."),
    ] = None


def evaluate(
    invocation: Invocation,
    selected: ScopeOptions,
    options: EvaluateOptions,
    *,
    as_json: AsJson = False,
) -> ExitCode:
    """Compare results with the right answers. By default, compares the newest of each document.

    chordwise evaluate latest --gold truth.csv

    chordwise evaluate --suite suites/contracts --model gpt-5-mini
    """
    settings = invocation.settings()
    if options.dates and not options.gold_file:
        raise UsageError("--dates needs --gold.", "A suite has its own `dates`.")
    if options.suite is not None:
        if options.gold_file or selected != ScopeOptions():
            raise UsageError(
                "--suite cannot be used with RUN, PROFILE, --gold or --type.",
                "A suite defines its own questions and right answers.",
            )
        return _evaluate_suite(invocation, settings, options, as_json=as_json)
    if options.model or options.limit:
        raise UsageError("--model and --limit need --suite.", "Add --suite FOLDER.")
    truth = gold.read(options.gold_file, options.dates) if options.gold_file else None
    occurrence = invocation.occurrence
    with access.database(access.reach(invocation, settings)) as database:
        with database.read() as session:
            scope = replace(selected.find(session, settings), gold=truth)
        evaluations = evaluation.evaluate(database, scope, occurrence)
    if not evaluations and occurrence is None:
        raise UsageError(
            "There are no right answers to compare these results with.",
            "Give --gold FILE, or add feedback with `chordwise feedback`.",
        )
    if as_json:
        invocation.screen.write_json(evaluations=evaluations)
    else:
        for row in evaluations:
            invocation.screen.show(*render(row))
    return _code(evaluations) if occurrence is None else ExitCode.SUCCESS


def _evaluate_suite(
    invocation: Invocation, settings: Settings, options: EvaluateOptions, *, as_json: bool
) -> ExitCode:
    from chordwise.pipeline.learning import suite as suites  # noqa: PLC0415 - it loads Celery

    model, screen = options.model or settings.model, invocation.screen
    settings = access.with_model(invocation, settings, model)
    parts = suites.read(settings, options.suite or Path(), options.limit)
    access.require_external_database(settings)
    settings = access.reach(invocation, settings, Level.ALL)
    now = datetime.now(UTC)  # noqa: TID251 - the clock
    parts_done: list[Sequence[Sequence[Row]]] = []
    with access.working_context(invocation, settings) as context, live.display(screen) as display:
        watch = RunWatch(settings, context.database, screen.info)
        wait = partial(watch.wait_until_over, display=display)
        parts_done.extend(suites.evaluate_all(context, parts, model, now, wait))
    evaluations = [row for models in parts_done for rows in models for row in rows]
    if as_json:
        screen.write_json(evaluations=evaluations)
    else:
        for models in parts_done:
            screen.show(*side_by_side(models))
    return _code(evaluations)


def _code(evaluations: Sequence[Row]) -> ExitCode:
    is_incomplete = any(row["missing"] or row["drops"] for row in evaluations)
    return ExitCode.INCOMPLETE if is_incomplete else ExitCode.SUCCESS


MAX_MISSING = 10
_MAX_CONFUSED = 10
_WIDTH = 60
_CONFUSION = "confusion"
_LEAST_SHOWN = 0.0005
_WORDS = {
    "accuracy": "right",
    "macro_f1": "F1, mean of labels",
    "abstained": "marked for review",
    "accuracy_when_sure": "right if not marked",
    "match": "fields right",
    "exact_match": "exact match",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "rouge_1": "ROUGE-1",
    "rouge_l": "ROUGE-L",
    "row_recall": "rows found",
    "leaf_f1": "F1 of single values",
    "page_accuracy": "pages right",
    "grounded": "quotes grounded",
    "seconds": "seconds per document",
    "cost_usd": "US dollars per document",
    "calibration_error": "calibration error",
}


def render(evaluated: Row) -> Iterator[RenderableType]:
    """Return the measures of an analysis type: overall, by model and label, and confusions."""
    for part in evaluated["measured"]:
        who = "several models or prompts"
        if part["model"]:
            who = f"{part['provider']}/{part['model']}, {part['prompt_version']}"
        unjudged = f", {part['unjudged']:,} without right answers" if part["unjudged"] else ""
        held_out = " not used as examples" if part["is_held_out"] else ""
        what = f"{counted(part['judged'], 'result')}{held_out}{unjudged} · {who}"
        yield Text(one_line(f"{evaluated['analysis_type']}: {what}"), style="bold")
        measures = part["measures"]
        overall = [m for m in measures if not m.label or m.metric == "calibration_error"]
        yield _numbers(("Value (95 %)",), [overall])
        if part["is_whole"]:
            yield from _by_label(measures)
            yield from _compared(evaluated["manners"])
            yield from _confused(measures)
    for drop in evaluated["drops"]:
        when = f"since {drop['earlier_at']:%Y-%m-%d %H:%M}"
        yield Text(one_line(f"  {evaluation.drop_in_words(drop)} {when}"), style="yellow")
    yield from _missing(evaluated["missing"])


def side_by_side(models: Sequence[Sequence[Row]]) -> Iterator[RenderableType]:
    """Return the measures of several models on the same documents, two columns for each."""
    for kinds in zip(*models, strict=True):
        heading = f"{kinds[0]['part']}: {kinds[0]['analysis_type']}"
        yield Text(one_line(heading), style="bold")
        names = [one_line(row["asked"]) for row in kinds]
        yield _numbers(names, [row["measured"][0]["measures"] for row in kinds])
        yield from _compared(kinds[0]["manners"])
        for evaluated in kinds:
            yield from _missing(evaluated["missing"])


def _numbers(names: Sequence[str], columns: Sequence[Sequence[Measure]]) -> RenderableType:
    by_metric: dict[tuple[str, str], dict[int, Measure]] = {}
    for column, measures in enumerate(columns):
        for measure in measures:
            if measure.metric != _CONFUSION:
                by_metric.setdefault((measure.metric, measure.label), {})[column] = measure
    rows = []
    for (metric, label), of_columns in by_metric.items():
        name = f"{_WORDS.get(metric, metric)}{f' of {one_line(label, _WIDTH)}' if label else ''}"
        cells = ["–", ""] * len(columns)
        for column, measure in of_columns.items():
            bounds = interval(measure.low, measure.high, _number)
            value = _number(measure.value) + (f" ({bounds})" if bounds else "")
            cells[2 * column : 2 * column + 2] = value, f"{measure.count:,}"
        rows.append((f"  {name}", *cells))
    return layouts.numbers(("", *(title for name in names for title in (name, "Of"))), rows)


def _by_label(measures: Sequence[Measure]) -> Iterator[RenderableType]:
    rows: dict[str, dict[str, Measure]] = {}
    for measure in measures:
        if measure.label and measure.metric not in (_CONFUSION, "calibration_error"):
            rows.setdefault(measure.label, {})[measure.metric] = measure
    if not rows:
        return
    columns = list(dict.fromkeys(metric for row in rows.values() for metric in row))
    shown = []
    for label, row in rows.items():
        values = [_number(row[c].value) if c in row else "–" for c in columns]
        # The number of documents that have the field, or should have the label.
        counted_by = row.get("match") or row.get("f1")
        of = f"{counted_by.count:,}" if counted_by else ""
        shown.append((f"  {one_line(label, _WIDTH)}", *values, of))
    names = ("  Label or field", *(_WORDS.get(c, c) for c in columns), "Of")
    yield layouts.numbers(names, shown)


def _compared(manners: Mapping[str, Mapping[str, int]]) -> Iterator[RenderableType]:
    """Return a line for each manner, with the fields whose right values are mostly of it."""
    names: dict[str, list[str]] = {}
    for name, counts in manners.items():
        for manner, _ in Counter(counts).most_common(1):
            others = ", ".join(f"{counts[other]} {other}" for other in counts if other != manner)
            shown = one_line(name, _WIDTH) + (f" ({others})" if others else "")
            names.setdefault(manner, []).append(shown)
    for manner, listed in names.items():
        yield Text(f"  Compared {manner}: {', '.join(listed)}")


def _confused(measures: Sequence[Measure]) -> Iterator[RenderableType]:
    wrong = [m for m in measures if m.metric == _CONFUSION and m.label != m.found]
    rows = [
        (
            f"  {one_line(measure.label, _WIDTH) or 'another label'}",
            one_line(measure.found, _WIDTH),
            f"{int(measure.value):,}",
        )
        for measure in sorted(wrong, key=lambda m: -m.value)[:_MAX_CONFUSED]
    ]
    if rows:
        yield layouts.numbers(("  Should be", "Chosen", "Times"), rows)


def _missing(missing: Sequence[Row]) -> Iterator[RenderableType]:
    if missing:
        yield Text(f"No result to compare for {counted(len(missing), 'name')} in the file:")
    for row in missing[:MAX_MISSING]:
        yield Text(f"  {one_line(row['document'])}: {row['reason']}", style="yellow")
    if len(missing) > MAX_MISSING:
        yield Text(f"  … and {len(missing) - MAX_MISSING:,} more; use --json for all.")


def _number(value: float) -> str:
    return f"{value:.3f}" if value == 0 or abs(value) >= _LEAST_SHOWN else f"{value:.1e}"
