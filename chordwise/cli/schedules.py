"""`chordwise schedules`: what is done by itself, when, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import RenderableType
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.orm import Session

from chordwise.cli import access
from chordwise.cli.application import EPILOG
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Raw
from chordwise.cli.rendering import tables
from chordwise.cli.rendering.plain_text import document, one_line
from chordwise.cli.rendering.screen import Screen
from chordwise.cli.rendering.tables import FirstThatFits
from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import Lane, ScheduleRunStatus
from chordwise.embedded.stack import Level
from chordwise.errors import UsageError
from chordwise.pipeline.diagnosis.checks import Verdict
from chordwise.pipeline.diagnosis.schedules import judged
from chordwise.pipeline.schedules import scheduling
from chordwise.settings import ScheduleSettings, Settings
from chordwise.settings.schedules import AGES, CatchUp, ScheduleKind, check_one, reason
from chordwise.storage import clock, schedules
from chordwise.storage.runs import Run
from chordwise.storage.schedules import Origin, Schedule, ScheduleRun

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
    settings = access.reach(invocation, invocation.settings(), Level.DATABASE, screen.note)
    with access.database(settings) as database, database.read() as session:
        found = lines(schedules.enabled(session))
    if as_json:
        screen.write(document(schedules=found))
    elif found:
        screen.show(table(found), *defects(found))
    if missing := sorted(settings.schedules.keys() - {line.name for line in found}):
        screen.tell(f"Not yet taken up by a scheduler: {', '.join(missing)}.")
    elif not found:
        screen.tell("There are no schedules. docs/schedules.md says how to write one.")


def run(context: typer.Context, name: Name, *, as_json: AsJson = False) -> None:
    """Let a schedule be done now. The time at which it is due next stays.

    chordwise schedules run nightly
    """
    invocation, screen = Invocation.of(context), Screen()
    settings = access.reach(invocation, invocation.settings(), Level.ALL, screen.note)
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
    settings = access.reach(invocation, invocation.settings(), Level.DATABASE, screen.note)
    with access.database(settings) as database, database.read() as session:
        found = past_lines(session, schedules.newest(session, name, limit))
        if name is not None and not found and name not in settings.schedules:
            scheduling.require(session, name)
    if as_json:
        screen.write(document(schedule_runs=found))
    elif found:
        screen.show(past_table(found), *reasons(found))
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
    settings = access.reach(invocation, invocation.settings(), Level.DATABASE, screen.note)
    _write(settings, lambda session: scheduling.remove(session, name))
    screen.tell(f"The schedule {name} is removed.")


def _add(invocation: Invocation, name: str, values: dict[str, object]) -> None:
    screen, settings = Screen(), invocation.settings()
    wanted = scheduling.anchor(settings, _checked(settings, name, values), Path.cwd())
    settings = access.reach(invocation, settings, Level.DATABASE, screen.note)

    _write(settings, lambda session: _define(session, name, wanted))
    check = judged(settings, name, wanted)
    finding = check.finding.removesuffix(".")
    screen.tell(f"The schedule {name} is in force while a scheduler runs: {finding}.")
    if check.verdict is Verdict.WARN:
        screen.tell(f"Warning: {check.hint}")


def _define(session: Session, name: str, wanted: ScheduleSettings) -> None:
    scheduling.define(session, name, wanted, Origin.DATABASE, clock.read(session))


def _write(settings: Settings, change: Callable[[Session], None]) -> None:
    with access.database(settings) as database, database.write() as session:
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
        tables.table(("Schedule", "Kind", "Cron", "Next", "Time zone", "From"), _texts(wide)),
        tables.folded(("Schedule", "Kind", "Cron", "Next", "From"), _texts(narrow), _SHORT),
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
        tables.table((*names, "Outcome"), wide, _OUTCOME_WIDTH),
        tables.folded((*names[:-1], "Runs and outcome"), narrow, _SHORT),
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
