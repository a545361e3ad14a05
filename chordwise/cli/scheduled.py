"""The commands of schedules: checked when they are defined, and run when they are due."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from signal import Signals

from sqlalchemy.orm import Session

from chordwise.cli import application
from chordwise.cli.invocation import Invocation
from chordwise.domain import due_times
from chordwise.domain.learning import statistics
from chordwise.domain.states import Lane
from chordwise.domain.visible_text import visible
from chordwise.embedded import processes
from chordwise.errors import ChordwiseError, ConfigurationError, ExitCode, ReadError, UsageError
from chordwise.pipeline.diagnosis.outcome import Check, CheckStatus, failed, warning
from chordwise.pipeline.exports import selection
from chordwise.pipeline.inbox.folders import inboxes_of
from chordwise.pipeline.models.model_client import lane_for
from chordwise.pipeline.runtime.context import Occurrence
from chordwise.pipeline.schedules import occurrences
from chordwise.pipeline.schedules.occurrences import CommandEnd
from chordwise.readers import discovery
from chordwise.remote import path_of
from chordwise.settings import Profile, ScheduleSettings, Settings
from chordwise.settings.locations import require_writable
from chordwise.storage import schedules
from chordwise.telemetry.logging import without_secrets

_LONGEST_OUTPUT = 4_000
_EXAMPLE_DUE = "20260101-0000"
_READ_FILES = ("gold_file", "schema_file", "labels_file", "principles")
_WRITTEN_FILES = ("output", "out")


class CommandExecutor:
    """Runs the commands of schedules in this process, with its settings."""

    def __init__(self, settings: Settings) -> None:
        embedded = settings.embedded.model_copy(update={"start": False})
        self._settings = settings.model_copy(update={"embedded": embedded})

    def execute(self, occurrence: Occurrence, folder: Path, words: Sequence[str]) -> CommandEnd:
        """Run a command line in `folder` until it ends or is interrupted.

        Raises:
            ConfigurationError: The folder does not exist here.
            ChordwiseError: The command failed.
        """
        _require_folder(folder)
        invocation = Invocation(loaded=self._settings, occurrence=occurrence)
        with chdir(folder), processes.handle_signals((Signals.SIGINT,), signal.default_int_handler):
            code, output = _called(words, invocation)
        return CommandEnd(exit_code=code, output=output[-_LONGEST_OUTPUT:])


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigurationError(
            f"There is no folder {folder}, in which the command runs.",
            "Create or mount it where the scheduler runs, or define the schedule again.",
        )


def _called(words: Sequence[str], invocation: Invocation) -> tuple[int, str]:
    """Run a command line; return its exit code and what it has printed."""
    hoisted = application.hoist(words)
    app = application.application(application.commands_to_load(hoisted[:1]))
    with io.StringIO() as output, redirect_stdout(output), redirect_stderr(output):
        try:
            app(args=hoisted, prog_name="chordwise", obj=invocation)
            code: object = ExitCode.SUCCESS
        except SystemExit as error:
            code = error.code
        text = without_secrets(visible(output.getvalue().strip()))
    return code if isinstance(code, int) else ExitCode.SUCCESS, text


def parsed(words: Sequence[str]) -> Mapping[str, object]:
    """Return the arguments and options of a command line by name, without running it.

    Raises:
        UsageError: A command or an option is unknown, or a value is invalid.
    """
    invocation = Invocation(parsed={})
    code, output = _called(words, invocation)
    if code != ExitCode.SUCCESS or invocation.parsed is None:
        raise UsageError(" ".join(output.partition("Error: ")[2].split()) or output)
    return invocation.parsed


def checked(name: str, schedule: ScheduleSettings) -> Mapping[str, object]:
    """Return the arguments and options of the command of a schedule.

    Raises:
        ConfigurationError: The command line is invalid.
    """
    try:
        return parsed([word.replace("{due}", _EXAMPLE_DUE) for word in schedule.words])
    except UsageError as error:
        raise ConfigurationError(
            f"schedules.{name}: run = “{schedule.run}”: {error.what}",
            f"`chordwise {schedule.words[0]} --help` lists the options.",
        ) from error


def check_all(settings: Settings) -> None:
    """Check the commands of all schedules in the settings.

    Raises:
        ConfigurationError: A command line is invalid.
    """
    for name, schedule in settings.schedules.items():
        checked(name, schedule)


def warnings(settings: Settings) -> list[str]:
    """Return why commands of the schedules in the settings would fail now."""
    return [
        f"{check.name}: {check.finding} {check.hint}"
        for check in checks(settings, None)
        if check.status is not CheckStatus.OK
    ]


def checks(settings: Settings, session: Session | None) -> Iterator[Check]:
    """Yield a check of each schedule, of the settings and, with `session`, of the database."""
    for name, schedule in settings.schedules.items():
        yield check(settings, name, schedule, settings.base_folder)
    for row in schedules.enabled(session) if session else ():
        if row.origin == schedules.ScheduleOrigin.DATABASE:
            try:
                schedule = occurrences.settings_of(row)
            except ValueError:
                what = f"{row.name} is invalid: {occurrences.defect_of(row)}."
                error = ConfigurationError(what, occurrences.DEFECT_HINT)
                yield failed(f"schedule {row.name}", error)
            else:
                yield check(settings, row.name, schedule, Path(row.folder))


def check(settings: Settings, name: str, schedule: ScheduleSettings, folder: Path) -> Check:
    """Return when a schedule is due next, with a warning if it would fail now.

    It is only a warning, because a network share may be mounted later, for example.
    """
    now = datetime.now(UTC)  # noqa: TID251 - the clock
    due_at = due_times.next_due(schedule.cron, schedule.zone, now).astimezone(schedule.zone)
    title = f"schedule {name}"
    finding = f"{schedule.words[0]}, due {due_at:%Y-%m-%d %H:%M} {schedule.time_zone}"
    try:
        options = checked(name, schedule)
        _require_folder(folder)
        with chdir(folder):
            _require_files(settings, options)
            _require_documents(settings, schedule, options)
        if schedule.words[0] == "recalibrate":
            statistics.require_scikit_learn()
    except ChordwiseError as error:
        return warning(title, f"{finding}; {error.what}", error.hint)
    return Check(name=title, status=CheckStatus.OK, finding=finding)


def _require_files(settings: Settings, options: Mapping[str, object]) -> None:
    """Check the files that the command reads and writes, and the view or query of an export."""
    for name, path in options.items():
        if name in _READ_FILES and isinstance(path, Path) and not path.is_file():
            raise ReadError(f"There is no file {path}.", "Create or mount it.")
        if name in _WRITTEN_FILES and isinstance(path, Path) and path != Path("-"):
            require_writable(path.absolute().parent, "folder")
    view, sql = options.get("view"), options.get("sql")
    address = settings.reader_url or settings.database_url
    if address and (view or sql):
        with selection.opened(address, str(sql) if sql else selection.Selection(name=str(view))):
            return


def _require_documents(
    settings: Settings, schedule: ScheduleSettings, options: Mapping[str, object]
) -> None:
    name = options.get("profile") or ""
    if name not in {"", *settings.profiles}:
        raise ConfigurationError(
            f"There is no profile “{name}”.", "Change the schedule, or chordwise.toml."
        )
    paths = options.get("paths")
    for path in paths if isinstance(paths, list) else ():
        if settings.inbox.is_watched and inboxes_of(settings).holding(path_of(path).absolute()):
            what = f"{path} is in a watched inbox, which takes its files at once."
            raise ConfigurationError(what, "Use another folder, or set inbox.enabled = false.")
        discovery.matches_any_file(str(path))
    profile = settings.profiles.get(str(name), Profile())
    if (options.get("lane") or profile.lane) is Lane.BATCH:
        _require_batch_lane(settings, schedule, str(options.get("model") or profile.model))


def _require_batch_lane(settings: Settings, schedule: ScheduleSettings, model: str) -> None:
    """Check that there is a Batch API, and time for the online lane after it."""
    model = model or settings.model
    if lane_for(settings, model, Lane.BATCH) is Lane.ONLINE:
        what = f"the lane is batch, but {model} has no Batch API and uses the online lane."
        raise ConfigurationError(what, "See docs/costs.md for models with a Batch API.")
    expiry, spill_over = schedule.expires_after_hours, settings.batch.spill_over_hours
    if expiry <= spill_over:
        what = (
            f"it expires after {expiry:g} hours, before unanswered questions are asked online, "
            f"after {spill_over:g} hours."
        )
        raise ConfigurationError(what, "Raise expires_after_hours, or lower spill_over_hours.")
