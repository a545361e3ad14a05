"""`chordwise evaluate` and `recalibrate`: how good results are, and what claims are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from sqlalchemy.orm import Session

from chordwise.cli import access
from chordwise.cli.application import EPILOG
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, OnlyTypes
from chordwise.cli.rendering.plain_text import counted, document, one_line, share
from chordwise.cli.rendering.screen import Screen
from chordwise.domain.learning.calibration import FEWEST, FEWEST_OF_EACH
from chordwise.domain.learning.measures import Measure
from chordwise.embedded.stack import Level
from chordwise.errors import ExitCode, UsageError
from chordwise.pipeline.learning import evaluating, gold, recalibrating
from chordwise.pipeline.learning.evaluating import Comparison, Evaluated, Measured
from chordwise.pipeline.learning.recalibrating import Lesson
from chordwise.storage import calibrations
from chordwise.storage.database import Database


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=EPILOG)(evaluate)
    app.command(epilog=EPILOG)(recalibrate)


def evaluate(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run's name or id, or latest.")
    ] = None,
    *,
    gold_file: Annotated[
        Path | None,
        typer.Option("--gold", metavar="FILE", help="The truth, as CSV or JSONL; else feedback."),
    ] = None,
    types: OnlyTypes = None,
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="Only what [profiles.NAME] asks.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Compare results with the truth. Without a run, the newest of each document.

    chordwise evaluate latest --gold truth.csv
    """
    invocation, screen = Invocation.of(context), Screen()
    settings = invocation.settings()
    truth = gold.read(gold_file) if gold_file else None
    scope = evaluating.of(settings, run, profile, types or ())
    settings = access.reach(invocation, settings, Level.DATABASE, screen.note)
    with access.database(settings) as database:
        found = evaluating.evaluate(database, scope, truth, partial(_write, database))
    if not found:
        raise UsageError(
            "Nobody has said yet what is right of these results.",
            "Give --gold FILE, or say it with `chordwise feedback`.",
        )
    if as_json:
        screen.write(document(evaluations=[_as_json(each) for each in found]))
    else:
        for each in found:
            screen.show(*laid_out(each))
    if any(each.comparison.missing for each in found):
        raise typer.Exit(ExitCode.INCOMPLETE)


def recalibrate(
    context: typer.Context,
    *,
    most_errors: Annotated[
        float, typer.Option(min=0, max=1, metavar="0…1", help="How many accepted may be wrong.")
    ] = recalibrating.MOST_ERRORS,
    as_json: AsJson = False,
) -> None:
    """Learn what a claimed confidence is worth. Feedback and evaluations say it.

    chordwise recalibrate
    """
    invocation, screen = Invocation.of(context), Screen()
    settings = access.reach(invocation, invocation.settings(), Level.DATABASE, screen.note)
    with access.database(settings) as database:
        with database.read() as session:
            claims = calibrations.claims(session)
        lessons = recalibrating.learn(claims, most_errors)
        with database.write() as session:
            changed = recalibrating.store(session, lessons, most_errors)
    if as_json:
        screen.write(document(lessons=lessons, most_errors=most_errors, changed=changed))
    elif lessons:
        screen.show(*lesson_table(lessons, most_errors))
    else:
        screen.tell("Nothing has been judged yet: `chordwise feedback` or `chordwise evaluate`.")


def _write(database: Database, change: Callable[[Session], int]) -> int:
    with database.write() as session:
        return change(session)


def _as_json(evaluated: Evaluated) -> Mapping[str, object]:
    return {
        "analysis_type": evaluated.comparison.kind,
        "missing": evaluated.comparison.missing,
        "measured": [_measured(each) for each in evaluated.measured],
    }


def _measured(measured: Measured) -> Mapping[str, object]:
    provider, model, prompt_version = measured.group or (None, None, None)
    return {
        "is_whole": measured.is_whole,
        "provider": provider,
        "model": model,
        "prompt_version": prompt_version,
        "judged": measured.judged,
        "unjudged": measured.unjudged,
        "measures": measured.measures,
    }


MOST_MISSING = 10
_MOST_CONFUSED = 10
_WIDTH = 60
_CONFUSION = "confusion"
_WORDS = {
    "accuracy": "right",
    "macro_f1": "F1, mean of labels",
    "abstained": "marked for review",
    "accuracy_when_sure": "right of the others",
    "match": "fields right",
    "exact_match": "to the letter",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "rouge_1": "ROUGE-1",
    "rouge_l": "ROUGE-L",
    "grounded": "quotes grounded",
    "calibration_error": "calibration error",
}


def laid_out(evaluated: Evaluated) -> Iterator[RenderableType]:
    """Return the numbers of an analysis type: of all, of models and labels, what is confused."""
    for each in evaluated.measured:
        yield Text(one_line(_heading(each)), style="bold")
        yield _numbers([m for m in each.measures if not m.label or m.metric == "calibration_error"])
        if each.is_whole:
            yield from _by_label(each.measures)
            yield from _confused(each.measures)
    yield from _missing(evaluated.comparison)


def lesson_table(found: Sequence[Lesson], most_errors: float) -> Iterator[RenderableType]:
    """Return what was learnt, a row for each model and analysis type, and what is too little."""
    table = _table("Type", "Part", "Model", "Judged", "Right", "Method", "Error", "Accept")
    for each in found:
        key, curve = each.key, each.curve
        accepted = each.acceptance
        table.add_row(
            key.analysis_type,
            key.part,
            Text(one_line(f"{key.provider}/{key.model}", _WIDTH)),
            f"{each.judged:,}",
            f"{each.judged_right:,}",
            curve.method if curve else "too few",
            f"{curve.error_before:.3f} → {curve.error_after:.3f}" if curve else "–",
            f"≥ {accepted.accept_from:.2f} ({share(accepted.share)})" if accepted else "–",
        )
    yield table
    yield Text(
        f"Accept: from this confidence on at most {share(most_errors)} are wrong, and how many "
        "that is.",
        style="dim",
    )
    if any(each.curve is None for each in found):
        yield Text(
            f"Too few: {FEWEST} judgments are needed, {FEWEST_OF_EACH} of them right and "
            f"{FEWEST_OF_EACH} wrong.",
            style="dim",
        )


def _heading(measured: Measured) -> str:
    who = "several models or prompts"
    if measured.group:
        provider, model, prompt_version = measured.group
        who = f"{provider}/{model}, {prompt_version}"
    unjudged = f", {measured.unjudged:,} not judged" if measured.unjudged else ""
    return f"{measured.analysis_type}: {counted(measured.judged, 'result')}{unjudged} · {who}"


def _numbers(measures: Sequence[Measure]) -> RenderableType:
    table = _table("", "Value", "95 %", "Of")
    for each in measures:
        if each.metric != _CONFUSION:
            name = _WORDS.get(each.metric, each.metric)
            label = f" of {each.label}" if each.label else ""
            table.add_row(f"  {name}{label}", _number(each.value), _bounds(each), f"{each.count:,}")
    return table


def _by_label(measures: Sequence[Measure]) -> Iterator[RenderableType]:
    """Return a row for each label or field, a column for each number of it."""
    rows: dict[str, dict[str, Measure]] = {}
    for each in measures:
        if each.label and each.metric not in (_CONFUSION, "calibration_error"):
            rows.setdefault(each.label, {})[each.metric] = each
    if not rows:
        return
    columns = list(dict.fromkeys(metric for row in rows.values() for metric in row))
    table = _table("  Label or field", *(_WORDS.get(c, c) for c in columns), "Of")
    for label, row in rows.items():
        values = [_number(row[c].value) if c in row else "–" for c in columns]
        # How many documents have the field, or should have the label.
        counted_by = row.get("match") or row.get("f1")
        of = f"{counted_by.count:,}" if counted_by else ""
        table.add_row(Text(f"  {one_line(label, _WIDTH)}"), *values, of)
    yield table


def _confused(measures: Sequence[Measure]) -> Iterator[RenderableType]:
    wrong = [m for m in measures if m.metric == _CONFUSION and m.label != m.found]
    if not wrong:
        return
    table = _table("  Should be", "Chosen", "Times")
    for each in sorted(wrong, key=lambda m: -m.value)[:_MOST_CONFUSED]:
        label = one_line(each.label, _WIDTH) or "something else"
        table.add_row(
            Text(f"  {label}"), Text(one_line(each.found, _WIDTH)), f"{int(each.value):,}"
        )
    yield table


def _missing(comparison: Comparison) -> Iterator[RenderableType]:
    if comparison.missing:
        yield Text(
            f"Nothing to compare for {counted(len(comparison.missing), 'name')} of the file:"
        )
    for each in comparison.missing[:MOST_MISSING]:
        yield Text(f"  {one_line(each.document)}: {each.reason}", style="yellow")
    if len(comparison.missing) > MOST_MISSING:
        yield Text(f"  and {len(comparison.missing) - MOST_MISSING:,} more; --json names them all.")


def _bounds(measure: Measure) -> str:
    if measure.low is None or measure.high is None:
        return ""
    return f"{_number(measure.low)} – {_number(measure.high)}"


def _number(value: float) -> str:
    return f"{value:.3f}"


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for place, name in enumerate(names):
        table.add_column(name, justify="left" if place == 0 else "right", overflow="fold")
    return table
