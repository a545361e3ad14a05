"""`chordwise evaluate`: how good results are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text
from sqlalchemy.orm import Session

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AnyRun, AsJson, OnlyTypes
from chordwise.cli.rendering import layouts
from chordwise.cli.rendering.plain_text import counted, one_line
from chordwise.domain.learning.measures import Measure
from chordwise.errors import ExitCode, UsageError
from chordwise.pipeline.learning import evaluation, gold
from chordwise.pipeline.learning.evaluation import Comparison, Evaluated, Measured
from chordwise.storage.database import Database


def evaluate(
    invocation: Invocation,
    run: AnyRun = None,
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
) -> ExitCode:
    """Compare results with the truth. Without a run, the newest of each document.

    chordwise evaluate latest --gold truth.csv
    """
    settings = invocation.settings()
    truth = gold.read(gold_file) if gold_file else None
    scope = evaluation.of(settings, run, profile, types or ())
    with access.database(access.reach(invocation, settings)) as database:
        found = evaluation.evaluate(database, scope, truth, partial(_write, database))
    if not found:
        raise UsageError(
            "There is neither feedback nor a gold file for these results.",
            "Give --gold FILE, or say it with `chordwise feedback`.",
        )
    if as_json:
        invocation.screen.write_json(evaluations=[_as_json(each) for each in found])
    else:
        for each in found:
            invocation.screen.show(*laid_out(each))
    is_incomplete = any(each.comparison.missing for each in found)
    return ExitCode.INCOMPLETE if is_incomplete else ExitCode.SUCCESS


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


MAX_MISSING = 10
_MAX_CONFUSED = 10
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


def _heading(measured: Measured) -> str:
    who = "several models or prompts"
    if measured.group:
        provider, model, prompt_version = measured.group
        who = f"{provider}/{model}, {prompt_version}"
    unjudged = f", {measured.unjudged:,} not judged" if measured.unjudged else ""
    return f"{measured.analysis_type}: {counted(measured.judged, 'result')}{unjudged} · {who}"


def _numbers(measures: Sequence[Measure]) -> RenderableType:
    rows = []
    for each in measures:
        if each.metric != _CONFUSION:
            name = _WORDS.get(each.metric, each.metric)
            label = f" of {each.label}" if each.label else ""
            rows.append((f"  {name}{label}", _number(each.value), _bounds(each), f"{each.count:,}"))
    return layouts.numbers(("", "Value", "95 %", "Of"), rows)


def _by_label(measures: Sequence[Measure]) -> Iterator[RenderableType]:
    """Return a row for each label or field, a column for each number of it."""
    rows: dict[str, dict[str, Measure]] = {}
    for each in measures:
        if each.label and each.metric not in (_CONFUSION, "calibration_error"):
            rows.setdefault(each.label, {})[each.metric] = each
    if not rows:
        return
    columns = list(dict.fromkeys(metric for row in rows.values() for metric in row))
    shown = []
    for label, row in rows.items():
        values = [_number(row[c].value) if c in row else "–" for c in columns]
        # How many documents have the field, or should have the label.
        counted_by = row.get("match") or row.get("f1")
        of = f"{counted_by.count:,}" if counted_by else ""
        shown.append((f"  {one_line(label, _WIDTH)}", *values, of))
    names = ("  Label or field", *(_WORDS.get(c, c) for c in columns), "Of")
    yield layouts.numbers(names, shown)


def _confused(measures: Sequence[Measure]) -> Iterator[RenderableType]:
    wrong = [m for m in measures if m.metric == _CONFUSION and m.label != m.found]
    if not wrong:
        return
    rows = []
    for each in sorted(wrong, key=lambda m: -m.value)[:_MAX_CONFUSED]:
        label = one_line(each.label, _WIDTH) or "something else"
        rows.append((f"  {label}", one_line(each.found, _WIDTH), f"{int(each.value):,}"))
    yield layouts.numbers(("  Should be", "Chosen", "Times"), rows)


def _missing(comparison: Comparison) -> Iterator[RenderableType]:
    if comparison.missing:
        yield Text(
            f"Nothing to compare for {counted(len(comparison.missing), 'name')} of the file:"
        )
    for each in comparison.missing[:MAX_MISSING]:
        yield Text(f"  {one_line(each.document)}: {each.reason}", style="yellow")
    if len(comparison.missing) > MAX_MISSING:
        yield Text(f"  and {len(comparison.missing) - MAX_MISSING:,} more; --json names them all.")


def _bounds(measure: Measure) -> str:
    if measure.low is None or measure.high is None:
        return ""
    return f"{_number(measure.low)} – {_number(measure.high)}"


def _number(value: float) -> str:
    return f"{value:.3f}"
