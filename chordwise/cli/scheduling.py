"""`chordwise schedules`: what is done by itself, when, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from sqlalchemy.orm import Session

from chordwise.cli import opening
from chordwise.cli.application import EPILOG
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Raw
from chordwise.cli.rendering import schedules as rendered
from chordwise.cli.rendering.documents import document
from chordwise.cli.rendering.screen import Screen
from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.lanes import Lane
from chordwise.embedded.stack import Level
from chordwise.errors import UsageError
from chordwise.pipeline.diagnosis.checks import Verdict
from chordwise.pipeline.diagnosis.schedules import judged
from chordwise.pipeline.schedules import scheduling
from chordwise.settings import ScheduleSettings, Settings
from chordwise.settings.schedules import AGES, CatchUp, ScheduleKind, check_one, reason
from chordwise.storage import clock, schedules
from chordwise.storage.schedules import Origin

Name: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
Cron: TypeAlias = Annotated[
    str, typer.Option(metavar="CRON", help="Minute hour day month weekday, in quotes.")
]
TimeZone: TypeAlias = Annotated[str, typer.Option(metavar="ZONE", help="Such as Europe/Berlin.")]
Kind: TypeAlias = Annotated[ScheduleKind, typer.Option(help="What to do.")]
Profile: TypeAlias = Annotated[str, typer.Option(metavar="NAME", help="What to ask.")]
Paths: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="PATH", help="What to analyze; may be repeated.")
]
InLane: TypeAlias = Annotated[
    Lane | None,
    typer.Option("--lane", help="For analyze and reanalyze; unset: as the profile, or the runs."),
]
Folder: TypeAlias = Annotated[
    str, typer.Option(metavar="FOLDER", help="Where a report or an export is written to.")
]
View: TypeAlias = Annotated[
    str, typer.Option(metavar="VIEW", help="For export: a view or a table.")
]
Statement: TypeAlias = Annotated[
    str, typer.Option("--sql", metavar='"SELECT …"', help="For export, instead of a view.")
]
Format: TypeAlias = Annotated[
    ExportFormat | None, typer.Option("--format", help="Of an export; csv without it.")
]
GoldFile: TypeAlias = Annotated[
    str, typer.Option(metavar="FILE", help="For evaluate: the truth; else feedback.")
]
MostErrors: TypeAlias = Annotated[
    float | None,
    typer.Option(min=0, max=1, metavar="0…1", help="For recalibrate: how many may be wrong."),
]
CatchingUp: TypeAlias = Annotated[
    CatchUp, typer.Option(help="After a downtime: once for all that was missed, or not at all.")
]
Expiry: TypeAlias = Annotated[
    float,
    typer.Option(min=0.01, metavar="HOURS", help="After which it keeps no other from starting."),
]
Age: TypeAlias = Annotated[
    float | None, typer.Option(min=0, metavar="DAYS", help="For prune: delete what is older.")
]
_HELP = """Show what is done by itself, start it now, and change it.

chordwise schedules list

chordwise schedules run nightly
"""


def register(app: typer.Typer) -> None:
    """Add the command with its own commands."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    group.command("list", epilog=EPILOG)(list_schedules)
    group.command(epilog=EPILOG)(run)
    group.command(epilog=EPILOG)(history)
    group.command(epilog=EPILOG)(add)
    group.command(epilog=EPILOG)(remove)
    app.add_typer(group, name="schedules", help=_HELP, epilog=EPILOG)


def list_schedules(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List what is done by itself, and when the next time is.

    chordwise schedules list
    """
    invocation, screen = Invocation.of(context), Screen()
    settings = opening.reach(invocation, invocation.settings(), Level.DATABASE, screen.note)
    with opening.database(settings) as database, database.read() as session:
        found = rendered.lines(schedules.enabled(session))
    if as_json:
        screen.write(document(schedules=found))
    elif found:
        screen.show(rendered.table(found), *rendered.defects(found))
    if missing := sorted(settings.schedules.keys() - {line.name for line in found}):
        screen.tell(f"Not yet taken up by a scheduler: {', '.join(missing)}.")
    elif not found:
        screen.tell("There are no schedules. docs/schedules.md says how to write one.")


def run(context: typer.Context, name: Name, *, as_json: AsJson = False) -> None:
    """Let a schedule be done now. The time at which it is due next stays.

    chordwise schedules run nightly
    """
    invocation, screen = Invocation.of(context), Screen()
    settings = opening.reach(invocation, invocation.settings(), Level.ALL, screen.note)
    moments: list[datetime] = []

    def start(session: Session) -> None:
        now = clock.read(session)
        _take_from_configuration(session, settings, name, now)
        scheduling.start_now(session, name, now)
        moments.append(now)

    _write(settings, start)
    if as_json:
        screen.write(document(schedule=name, due_at=moments[0]))
    screen.tell(f"The schedule {name} is begun by a scheduler within seconds.")
    screen.suggest(f"chordwise schedules history {name}")


def history(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only of this schedule.")
    ] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many to list.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List what became of the due times, the newest first.

    chordwise schedules history nightly
    """
    invocation, screen = Invocation.of(context), Screen()
    settings = opening.reach(invocation, invocation.settings(), Level.DATABASE, screen.note)
    with opening.database(settings) as database, database.read() as session:
        found = rendered.past_lines(session, schedules.newest(session, name, limit))
        if name is not None and not found and name not in settings.schedules:
            scheduling.require(session, name)
    if as_json:
        screen.write(document(schedule_runs=found))
    elif found:
        screen.show(rendered.past_table(found), *rendered.reasons(found))
    else:
        screen.tell("Nothing has been due yet. `chordwise schedules list` says when it will be.")


def add(  # noqa: PLR0913 - a parameter is an option of the command
    context: typer.Context,
    name: Name,
    *,
    cron: Cron,
    time_zone: TimeZone = "UTC",
    kind: Kind = ScheduleKind.ANALYZE,
    profile: Profile = "",
    path: Paths = None,
    lane: InLane = None,
    folder: Folder = "",
    view: View = "",
    sql: Statement = "",
    export_format: Format = None,
    raw: Raw = False,
    gold: GoldFile = "",
    most_errors: MostErrors = None,
    catch_up: CatchingUp = CatchUp.ONCE,
    expires_after_hours: Expiry = 22,
    keep_cache_days: Age = None,
    keep_answers_days: Age = None,
    keep_runs_days: Age = None,
) -> None:
    """Add a schedule to the database, or change one there.

    chordwise schedules add nightly --cron "0 2 * * *" --time-zone Europe/Berlin --path contracts
    """
    times = {"cron": cron, "time_zone": time_zone, "catch_up": catch_up}
    work = {"kind": kind, "profile": profile, "paths": tuple(path or ()), "lane": lane}
    export = {"folder": folder, "view": view, "sql": sql, "format": export_format, "raw": raw}
    learning = {"gold": gold, "most_errors": most_errors}
    ages = dict(zip(AGES, (keep_cache_days, keep_answers_days, keep_runs_days), strict=True))
    expiry = {"expires_after_hours": expires_after_hours}
    values: dict[str, object] = {**times, **work, **export, **learning, **ages, **expiry}
    _add(Invocation.of(context), name, values)


def remove(context: typer.Context, name: Name) -> None:
    """Take a schedule out of the database; its history stays.

    chordwise schedules remove nightly
    """
    invocation, screen = Invocation.of(context), Screen()
    settings = opening.reach(invocation, invocation.settings(), Level.DATABASE, screen.note)
    _write(settings, lambda session: scheduling.remove(session, name))
    screen.tell(f"The schedule {name} is removed.")


def _add(invocation: Invocation, name: str, values: dict[str, object]) -> None:
    screen, settings = Screen(), invocation.settings()
    wanted = scheduling.anchor(settings, _checked(settings, name, values), Path.cwd())
    settings = opening.reach(invocation, settings, Level.DATABASE, screen.note)

    _write(settings, lambda session: _define(session, name, wanted))
    check = judged(settings, name, wanted)
    finding = check.finding.removesuffix(".")
    screen.tell(f"The schedule {name} is in force while a scheduler runs: {finding}.")
    if check.verdict is Verdict.WARN:
        screen.tell(f"Warning: {check.hint}")


def _define(session: Session, name: str, wanted: ScheduleSettings) -> None:
    scheduling.define(session, name, wanted, Origin.DATABASE, clock.read(session))


def _write(settings: Settings, change: Callable[[Session], None]) -> None:
    with opening.database(settings) as database, database.write() as session:
        change(session)


def _take_from_configuration(
    session: Session, settings: Settings, name: str, now: datetime
) -> None:
    """Define a schedule that stands in the configuration and that no scheduler has seen yet."""
    if name in settings.schedules:
        folder = scheduling.folder_of(settings)
        wanted = scheduling.anchor(settings, settings.schedules[name], folder)
        scheduling.define(session, name, wanted, Origin.CONFIGURATION, now)


def _checked(settings: Settings, name: str, values: dict[str, object]) -> ScheduleSettings:
    """Return the schedule that the options say.

    Raises:
        UsageError: They contradict each other, or cannot be kept.
    """
    try:
        wanted = ScheduleSettings.model_validate(values)
        check_one(name, wanted, settings.profiles, settings.inbox.folders)
    except ValueError as error:
        raise UsageError(f"{reason(error)}.", _HINT) from error
    return wanted


_HINT = "docs/schedules.md shows examples."
