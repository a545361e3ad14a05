"""Quality: Calibrate the confidence that models report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.domain.learning.statistics import MIN_JUDGMENTS, MIN_JUDGMENTS_OF_EACH
from chordwise.domain.number_formats import share
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import one_line
from chordwise.storage import calibrations
from chordwise.storage.calibrations import Lesson

_WIDTH = 60


def recalibrate(
    invocation: Invocation,
    *,
    max_error_rate: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="0…1", help="Allowed share of wrong answers among the accepted."
        ),
    ] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Calibrate the confidence that models report. Uses feedback and evaluations.

    chordwise recalibrate
    """
    screen = invocation.screen
    with access.database(access.reach(invocation)) as database:
        with database.read() as session:
            claims = calibrations.claims(session)
        lessons = calibrations.learn(claims, max_error_rate)
        commit = invocation.occurrence.write if invocation.occurrence else database.commit
        changed = commit(
            partial(calibrations.store, lessons=lessons, max_error_rate=max_error_rate)
        )
    if invocation.occurrence is not None:
        too_few = sum(lesson.curve is None for lesson in lessons)
        invocation.occurrence.record({"changed": changed, "too_few": too_few})
    if as_json:
        screen.write_json(lessons=lessons, max_error_rate=max_error_rate, changed=changed)
    elif lessons:
        screen.show(*render(lessons, max_error_rate))
    else:
        screen.info(
            "There are no judged answers yet. Use `chordwise feedback` or `chordwise evaluate`."
        )


def render(lessons: Sequence[Lesson], max_error_rate: float) -> Iterator[RenderableType]:
    """Return a row for each model and analysis type, with notes about the columns."""
    names = ("Type", "Part", "Model", "Judged", "Right", "Method", "Error", "Accept")
    yield layouts.numbers(names, map(_row, lessons))
    yield Text(
        f"Accept: the confidence from which at most {share(max_error_rate)} of the answers are "
        "wrong, and the share of answers above it.",
        style="dim",
    )
    if any(lesson.curve is None for lesson in lessons):
        yield Text(
            f"Too few: at least {MIN_JUDGMENTS} judged answers are needed, of which "
            f"{MIN_JUDGMENTS_OF_EACH} are right and {MIN_JUDGMENTS_OF_EACH} wrong.",
            style="dim",
        )


def _row(lesson: Lesson) -> Sequence[str]:
    key, curve, accepted = lesson.key, lesson.curve, lesson.acceptance
    return (
        key.analysis_type,
        key.part,
        one_line(f"{key.provider}/{key.model}", _WIDTH),
        f"{lesson.judged:,}",
        f"{lesson.judged_right:,}",
        curve.method if curve else "too few",
        f"{curve.error_before:.3f} → {curve.error_after:.3f}" if curve else "–",
        f"≥ {accepted.accept_from:.2f} ({share(accepted.share)})" if accepted else "–",
    )
