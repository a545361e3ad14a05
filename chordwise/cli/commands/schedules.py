"""Operation: List, start, add and remove schedules."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Annotated, TypeAlias
from zoneinfo import ZoneInfo

import typer
from rich.console import RenderableType
from rich.text import Text

from chordwise.cli import access, scheduled
from chordwise.cli.command import group
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import ScheduleRunStatus
from chordwise.embedded.home import Level
from chordwise.errors import UsageError
from chordwise.pipeline.diagnosis.outcome import CheckStatus
from chordwise.pipeline.schedules import occurrences
from chordwise.pipeline.schedules.occurrences import OCCURRENCES, SCHEDULES
from chordwise.relations.relation import Row
from chordwise.rendering import layouts
from chordwise.rendering.plain_text import one_line
from chordwise.settings import ScheduleSettings
from chordwise.settings.schedules import CatchUp, check_name, reason
from chordwise.storage import clock
from chordwise.storage.schedules import ScheduleOrigin

Name: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")]
_HELP = """List, start, add and remove schedules.

chordwise schedules list

chordwise schedules run nightly
"""


def list_schedules(invocation: Invocation, *, as_json: AsJson = False) -> None:
    """List the schedules and their next due times.

    chordwise schedules list
    """
    screen, settings = invocation.screen, access.reach(invocation)
    with access.reading(settings) as connection:
        rows = occurrences.listed(connection)
    if as_json:
        screen.write_json(schedules=rows)
    elif rows:
        screen.show(table(rows), *map(_defect, filter(itemgetter("defect"), rows)))
    if missing := sorted(settings.schedules.keys() - {row["name"] for row in rows}):
        screen.info(f"Not yet loaded by a scheduler: {', '.join(missing)}.")
    elif not rows:
        screen.info(
            "There are no schedules. Add one with `chordwise schedules add`, or in chordwise.toml."
        )


def run(invocation: Invocation, name: Name, *, as_json: AsJson = False) -> None:
    """Run a schedule now. Its next due time does not change.

    chordwise schedules run nightly
    """
    screen, settings = invocation.screen, access.reach(invocation, level=Level.ALL)
    with access.write(settings) as session:
        now = occurrences.run_now(session, settings, name)
    if as_json:
        screen.write_json(schedule=name, due_at=now)
    screen.info(f"A scheduler will start {name} within seconds.")
    screen.suggest(f"chordwise schedules history {name}")


def history(
    invocation: Invocation,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this schedule.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, help="The number of due times to list.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List past due times and their outcomes, newest first.

    chordwise schedules history nightly
    """
    screen, settings = invocation.screen, access.reach(invocation)
    with access.reading(settings) as connection:
        rows = OCCURRENCES.read(connection, {"schedule": name}, limit=limit)
        names = {row["name"] for row in SCHEDULES.read(connection, {"enabled": True})}
    if name is not None and not rows and name not in {*settings.schedules, *names}:
        raise occurrences.unknown(name)
    if as_json:
        screen.write_json(schedule_runs=rows)
    elif rows:
        screen.show(past_table(rows), *map(_failure, filter(itemgetter("error_message"), rows)))
    else:
        screen.info(
            "No schedule has been due yet. `chordwise schedules list` shows the next due times."
        )


def add(  # noqa: PLR0913 - the options of a command
    invocation: Invocation,
    name: Name,
    run: Annotated[
        str, typer.Argument(metavar='"COMMAND …"', help="The command to run, in quotes.")
    ],
    *,
    cron: Annotated[
        str, typer.Option(metavar="CRON", help="Minute hour day month weekday, in quotes.")
    ],
    time_zone: Annotated[str, typer.Option(metavar="ZONE", help="Such as Europe/Berlin.")] = "UTC",
    catch_up: Annotated[
        CatchUp, typer.Option(help="Missed due times after a downtime: run once, or skip.")
    ] = CatchUp.ONCE,
    expires_after_hours: Annotated[
        float,
        typer.Option(
            min=0.01, metavar="HOURS", help="After this time it no longer blocks the next run."
        ),
    ] = 22,
) -> None:
    """Add a schedule to the database, or replace it. The command runs in the current folder.

    chordwise schedules add nightly "submit contracts --nightly" --cron "0 2 * * *"
    """
    try:
        schedule = ScheduleSettings(
            run=run,
            cron=cron,
            time_zone=time_zone,
            catch_up=catch_up,
            expires_after_hours=expires_after_hours,
        )
        check_name(name)
    except ValueError as error:
        raise UsageError(f"{reason(error)}.", "See the examples in docs/schedules.md.") from error
    scheduled.checked(name, schedule)
    screen, settings, folder = invocation.screen, access.reach(invocation), Path.cwd()
    with access.write(settings) as session:
        origin, now = ScheduleOrigin.DATABASE, clock.read(session)
        occurrences.define(session, name, schedule, folder, origin, now)
    check = scheduled.check(settings, name, schedule, folder)
    finding = check.finding.removesuffix(".")
    screen.info(f"Stored the schedule {name}: {finding}. A scheduler must be running then.")
    if check.status is CheckStatus.WARN:
        screen.info(f"Warning: {check.hint}")


def remove(invocation: Invocation, name: Name) -> None:
    """Remove a schedule from the database. Its history is kept.

    chordwise schedules remove nightly
    """
    with access.write(access.reach(invocation)) as session:
        occurrences.remove(session, name)
    invocation.screen.info(f"Removed the schedule {name}.")


schedules = group(_HELP, list=list_schedules, run=run, history=history, add=add, remove=remove)


_UNREMARKABLE = (
    ScheduleRunStatus.DUE,
    ScheduleRunStatus.RUNNING,
    ScheduleRunStatus.WAITING,
    ScheduleRunStatus.SUCCEEDED,
)
_NOTHING = "–"
_OUTCOME_WIDTH = 20
_RUN_WIDTH = 60
# Columns whose values are always short.
_SHORT = ("From", "Due (UTC)", "By", "Status")


def table(rows: Sequence[Row]) -> RenderableType:
    """Return one row for each schedule, with the next due time in its time zone.

    A narrow terminal shows the time zone below the time.
    """
    wide, narrow = [], []
    for row in rows:
        what = row["name"], one_line(row["run"], _RUN_WIDTH), row["cron"]
        wide.append((*what, _next(row), row["time_zone"], row["origin"]))
        narrow.append((*what, f"{_next(row)}\n{row['time_zone']}", row["origin"]))
    return layouts.FirstThatFits(
        layouts.table(("Schedule", "Runs", "Cron", "Next", "Time zone", "From"), wide),
        layouts.folded(("Schedule", "Runs", "Cron", "Next", "From"), narrow, _SHORT),
    )


def _defect(row: Row) -> Text:
    what = f"{row['name']} is invalid: {row['defect']}. {occurrences.DEFECT_HINT}"
    return Text(one_line(what), style="yellow")


def past_table(rows: Sequence[Row]) -> RenderableType:
    """Return one row for each due time; a narrow terminal shows the outcome below the runs."""
    wide: list[list[str | Text]] = []
    narrow: list[list[str | Text]] = []
    for row in rows:
        status = Text(row["status"], style="" if row["status"] in _UNREMARKABLE else "yellow")
        due = f"{row['due_at']:%Y-%m-%d %H:%M}"
        cells: list[str | Text] = [row["schedule"], due, row["trigger"], status]
        became = ["\n".join(row["runs"]), one_line(_outcome(row["outcome"]))]
        wide.append([*cells, *(cell or _NOTHING for cell in became)])
        narrow.append([*cells, "\n".join(filter(None, became)) or _NOTHING])
    names = ("Schedule", "Due (UTC)", "By", "Status", "Runs")
    return layouts.FirstThatFits(
        layouts.table((*names, "Outcome"), wide, _OUTCOME_WIDTH),
        layouts.folded((*names[:-1], "Runs and outcome"), narrow, _SHORT),
    )


def _failure(row: Row) -> Text:
    when = f"{row['schedule']}, {row['due_at']:%Y-%m-%d %H:%M}"
    return Text(one_line(f"{when}: {row['error_message']} {row['hint'] or ''}"), style="dim")


def _next(row: Row) -> str:
    if row["next_due_at"] is None or row["defect"]:
        return _NOTHING
    return f"{row['next_due_at'].astimezone(ZoneInfo(row['time_zone'])):%Y-%m-%d %H:%M}"


def _outcome(outcome: JsonObject | None) -> str:
    parts: list[str] = []
    outcome = dict(outcome or {})
    output = str(outcome.pop("output", ""))
    if not outcome and output:
        return output.splitlines()[-1]
    for name, value in outcome.items():
        members = value.items() if isinstance(value, dict) else [(name, value)]
        parts += [f"{key} {count}" for key, count in members]
    return ", ".join(parts)
