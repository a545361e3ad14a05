"""Checks of schedules: their requirements and next due times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from chordwise.domain import due_times
from chordwise.domain.learning import calibration
from chordwise.domain.states import Lane
from chordwise.errors import ChordwiseError, ConfigurationError
from chordwise.pipeline.diagnosis.configured_paths import require_writable
from chordwise.pipeline.diagnosis.outcome import Check, CheckStatus, failed, guarded
from chordwise.pipeline.exports import selection, writers
from chordwise.pipeline.inbox.folders import inboxes_of
from chordwise.pipeline.learning import gold
from chordwise.pipeline.models.model_client import lane_for
from chordwise.pipeline.schedules import occurrences
from chordwise.pipeline.schedules.analyses import matches_any_file
from chordwise.pipeline.schedules.exports import format_of, selection_of
from chordwise.settings import ProfileSettings, ScheduleSettings, Settings
from chordwise.settings.schedules import ScheduleKind
from chordwise.storage import schedules
from chordwise.storage.database import translate_errors
from chordwise.storage.schedules import Schedule, ScheduleOrigin


def check_configured(settings: Settings) -> Iterator[Check]:
    """Yield the checks of the schedules in the settings."""
    for name, schedule in settings.schedules.items():
        anchored = occurrences.anchor(settings, schedule, settings.base_folder)
        yield schedule_check(settings, name, anchored)


def check_added(settings: Settings, engine: Engine) -> Iterator[Check]:
    """Yield the checks of the schedules in the database."""
    try:
        with translate_errors(), Session(engine) as session:
            found = [
                each
                for each in schedules.enabled(session)
                if each.origin == ScheduleOrigin.DATABASE
            ]
    except ChordwiseError as error:
        yield failed("schedules", error)
        return
    for each in found:
        yield guarded(f"schedule {each.name}", partial(_of_row, settings, each))


def _of_row(settings: Settings, row: Schedule) -> Check:
    if defect := occurrences.defect_of(row):
        what = f"{row.name} is invalid: {defect}."
        raise ConfigurationError(what, occurrences.WHOSE_DEFECT)
    return schedule_check(settings, row.name, ScheduleSettings.model_validate(row.options))


def schedule_check(settings: Settings, name: str, schedule: ScheduleSettings) -> Check:
    """Return when a schedule is due next, with a warning if it would fail now.

    It is only a warning, because a network share may be mounted later, for example.
    """
    try:
        if schedule.kind in _NEEDS:
            _NEEDS[schedule.kind](settings, schedule)
    except ChordwiseError as error:
        status, hint, what = CheckStatus.WARN, error.hint, f"; {error.what}"
    else:
        status, hint, what = CheckStatus.OK, "", ""
    now = datetime.now(UTC)  # noqa: TID251 - the clock
    due_at = due_times.next_due(schedule.cron, schedule.zone, now).astimezone(schedule.zone)
    finding = f"{schedule.kind}, due {due_at:%Y-%m-%d %H:%M} {schedule.time_zone}{what}"
    return Check(name=f"schedule {name}", status=status, finding=finding, hint=hint)


def _analysis(settings: Settings, schedule: ScheduleSettings) -> None:
    _require_profile(settings, schedule)
    for path in schedule.paths:
        if settings.inbox.is_watched and inboxes_of(settings).holding(Path(path)) is not None:
            what = f"{path} is in a watched inbox, which takes its files at once."
            raise ConfigurationError(what, "Use another folder, or set inbox.enabled = false.")
        matches_any_file(path)
    profile = settings.profiles.get(schedule.profile, ProfileSettings())
    if (schedule.lane or profile.lane) is Lane.BATCH:
        model = profile.model or settings.model
        if lane_for(settings, model, Lane.BATCH) is Lane.ONLINE:
            what = f"the lane is batch, but {model} has no Batch API and uses the online lane."
            raise ConfigurationError(what, "See docs/batch-lane.md for models with a Batch API.")
        _require_time_after_spill_over(settings, schedule)


def _reanalysis(settings: Settings, schedule: ScheduleSettings) -> None:
    lanes_of_runs = {
        *(each.lane for each in settings.profiles.values()),
        *(each.lane for each in settings.schedules.values()),
    }
    # Without a lane, each analysis uses the lane of its earlier run.
    if schedule.lane is Lane.BATCH or (schedule.lane is None and Lane.BATCH in lanes_of_runs):
        _require_time_after_spill_over(settings, schedule)


def _require_time_after_spill_over(settings: Settings, schedule: ScheduleSettings) -> None:
    """Check that a schedule in the batch lane expires after the switch to the online lane."""
    expiry, spill_over = schedule.expires_after_hours, settings.batch.spill_over_hours
    if expiry <= spill_over:
        what = (
            f"it expires after {expiry:g} hours, before unanswered questions are asked online, "
            f"after {spill_over:g} hours."
        )
        raise ConfigurationError(what, "Raise expires_after_hours, or lower spill_over_hours.")


def _require_profile(settings: Settings, schedule: ScheduleSettings) -> None:
    if schedule.profile not in {"", *settings.profiles}:
        what = f"There is no profile “{schedule.profile}”."
        raise ConfigurationError(what, "Change the schedule, or chordwise.toml.")


def _report(_settings: Settings, schedule: ScheduleSettings) -> None:
    require_writable(Path(schedule.folder), "folder")


def _export(settings: Settings, schedule: ScheduleSettings) -> None:
    require_writable(Path(schedule.folder), "folder")
    writers.require(format_of(schedule))
    if address := settings.reader_url or settings.database_url:
        with selection.opened(address, selection_of(schedule)):
            return


def _evaluation(settings: Settings, schedule: ScheduleSettings) -> None:
    _require_profile(settings, schedule)
    if schedule.gold:
        gold.read(Path(schedule.gold))


_NEEDS: Mapping[ScheduleKind, Callable[[Settings, ScheduleSettings], None]] = {
    ScheduleKind.ANALYZE: _analysis,
    ScheduleKind.REANALYZE: _reanalysis,
    ScheduleKind.REPORT: _report,
    ScheduleKind.INSIGHT: _report,
    ScheduleKind.EXPORT: _export,
    ScheduleKind.EVALUATE: _evaluation,
    ScheduleKind.RECALIBRATE: lambda _settings, _schedule: calibration.require(),
    ScheduleKind.CERTIFY: _require_profile,
}
