"""`chordwise evaluate` and `recalibrate`: how good results are, and what claims are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from chordwise.cli import opening
from chordwise.cli.application import EPILOG
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, OnlyTypes
from chordwise.cli.rendering import evaluations as rendered
from chordwise.cli.rendering.documents import document
from chordwise.cli.rendering.screen import Screen
from chordwise.embedded.stack import Level
from chordwise.errors import ExitCode, UsageError
from chordwise.pipeline.learning import evaluating, gold, recalibrating
from chordwise.pipeline.learning.evaluating import Evaluated, Measured
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
    settings = opening.reach(invocation, settings, Level.DATABASE, screen.note)
    with opening.database(settings) as database:
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
            screen.show(*rendered.laid_out(each))
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
    settings = opening.reach(invocation, invocation.settings(), Level.DATABASE, screen.note)
    with opening.database(settings) as database:
        with database.read() as session:
            claims = calibrations.claims(session)
        lessons = recalibrating.learn(claims, most_errors)
        with database.write() as session:
            changed = recalibrating.store(session, lessons, most_errors)
    if as_json:
        screen.write(document(lessons=lessons, most_errors=most_errors, changed=changed))
    elif lessons:
        screen.show(*rendered.lessons(lessons, most_errors))
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
