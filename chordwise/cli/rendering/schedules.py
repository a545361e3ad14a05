"""Schedules and their history, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import RenderableType
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.orm import Session

from chordwise.cli.rendering import fitting
from chordwise.cli.rendering.fitting import FirstThatFits
from chordwise.cli.rendering.plain_text import one_line
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import ScheduleRunStatus
from chordwise.pipeline.schedules import scheduling
from chordwise.settings import ScheduleSettings
from chordwise.storage.runs import Run
from chordwise.storage.schedules import Schedule, ScheduleRun

_QUIET = (
    ScheduleRunStatus.DUE,
    ScheduleRunStatus.RUNNING,
    ScheduleRunStatus.WAITING,
    ScheduleRunStatus.SUCCEEDED,
)
_NOTHING = "–"
_OUTCOME_WIDTH = 20
# Columns whose words are ours, and never long.
_SHORT = ("Kind", "From", "Due (UTC)", "By", "Status")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleLine:
    """One schedule that is in force."""

    name: str
    kind: str
    cron: str
    time_zone: str
    next_due_at: datetime | None
    origin: str
    options: JsonObject
    defect: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PastLine:
    """What became of one due time, and the names of the runs that it began."""

    schedule: str
    kind: str
    due_at: datetime
    trigger: str
    status: str
    runs: tuple[str, ...]
    outcome: JsonObject | None
    error_code: str | None
    error_message: str | None
    hint: str | None
    started_at: datetime | None
    finished_at: datetime | None


def lines(found: Sequence[Schedule]) -> list[ScheduleLine]:
    """Return what there is to say of schedules."""
    return [
        ScheduleLine(
            name=each.name,
            kind=each.kind,
            cron=each.cron,
            time_zone=each.time_zone,
            next_due_at=each.next_due_at,
            origin=each.origin,
            options=each.options,
            defect=scheduling.defect_of(each),
        )
        for each in found
    ]


def past_lines(session: Session, found: Sequence[ScheduleRun]) -> list[PastLine]:
    """Return what there is to say of occurrences."""
    names: dict[object, list[str]] = {each.id: [] for each in found}
    begun = select(Run.schedule_run_id, Run.name).where(Run.schedule_run_id.in_(names))
    for schedule_run_id, name in session.execute(begun.order_by(Run.id)):
        names[schedule_run_id].append(name)
    copied = [name for name in PastLine.__dataclass_fields__ if name != "runs"]
    return [
        PastLine(runs=tuple(names[each.id]), **{name: getattr(each, name) for name in copied})
        for each in found
    ]


def table(found: Sequence[ScheduleLine]) -> RenderableType:
    """Return one row for each schedule, its next time in its own time zone.

    On a narrow terminal the time zone stands below the time.
    """
    wide = [
        (each.name, each.kind, each.cron, _next(each), each.time_zone, each.origin)
        for each in found
    ]
    narrow = [(*row[:3], f"{row[3]}\n{row[4]}", row[5]) for row in wide]
    return FirstThatFits(
        fitting.table(("Schedule", "Kind", "Cron", "Next", "Time zone", "From"), _texts(wide)),
        fitting.folded(("Schedule", "Kind", "Cron", "Next", "From"), _texts(narrow), _SHORT),
    )


def defects(found: Sequence[ScheduleLine]) -> Iterator[Text]:
    """Yield a line for each schedule that cannot be carried out, with what to do."""
    for each in found:
        if each.defect:
            what = f"{each.name} cannot be read: {each.defect}. {scheduling.WHOSE_DEFECT}"
            yield Text(one_line(what), style="yellow")


def past_table(found: Sequence[PastLine]) -> RenderableType:
    """Return one row for each due time; on a narrow terminal the outcome stands below the runs."""
    wide = _texts(
        (
            each.schedule,
            f"{each.due_at:%Y-%m-%d %H:%M}",
            each.trigger,
            each.status,
            "\n".join(each.runs) or _NOTHING,
            one_line(_outcome(each.outcome)),
        )
        for each in found
    )
    for each, row in zip(found, wide, strict=True):
        row[3].style = "" if each.status in _QUIET else "yellow"
    narrow = [[*row[:4], _below_each_other(row[4:])] for row in wide]
    names = ("Schedule", "Due (UTC)", "By", "Status", "Runs")
    return FirstThatFits(
        fitting.table((*names, "Outcome"), wide, _OUTCOME_WIDTH),
        fitting.folded((*names[:-1], "Runs and outcome"), narrow, _SHORT),
    )


def reasons(found: Sequence[PastLine]) -> Iterator[Text]:
    """Yield a line for each due time that did not end well, with what to do."""
    for each in found:
        if each.error_message:
            when = f"{each.schedule}, {each.due_at:%Y-%m-%d %H:%M}"
            yield Text(one_line(f"{when}: {each.error_message} {each.hint or ''}"), style="dim")


def _texts(rows: Iterable[Sequence[str]]) -> list[list[Text]]:
    return [[Text(cell) for cell in row] for row in rows]


def _below_each_other(cells: Sequence[Text]) -> Text:
    return Text("\n").join([cell for cell in cells if cell.plain != _NOTHING] or cells[:1])


def _next(line: ScheduleLine) -> str:
    if line.next_due_at is None or line.defect:
        return _NOTHING
    zone = ScheduleSettings.model_validate(line.options).zone
    return f"{line.next_due_at.astimezone(zone):%Y-%m-%d %H:%M}"


def _outcome(outcome: JsonObject | None) -> str:
    parts = []
    for name, value in (outcome or {}).items():
        members = value.items() if isinstance(value, dict) else [(name, value)]
        parts += [f"{key} {count}" for key, count in members]
    return ", ".join(parts) or _NOTHING
