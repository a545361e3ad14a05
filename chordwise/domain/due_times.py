"""Due times of schedules: cron expressions in a time zone, across its clock changes.

At a fixed time of day (“0 2 * * *”), a time that the clock skips is due right after the gap, and a
time that occurs twice is due the first time only. If the minute or hour field begins with `*`, as
in “*/30 * * * *”, elapsed time counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_FIELDS = 5
_LONG_AGO = datetime(2000, 1, 1)  # noqa: DTZ001 - only checks that the expression can be parsed
# The shortest window with a due time is used, so that frequent schedules need few steps.
_WINDOWS = (timedelta(hours=1), timedelta(days=1), timedelta(days=31))


def check(cron: str) -> None:
    """Reject an expression that is never due or cannot be parsed.

    Raises:
        ValueError: It does not have five fields, a field is invalid, or no date matches.
    """
    fields = len(cron.split())
    if fields != _FIELDS:
        raise ValueError(
            f"“{cron}” has {fields} fields instead of 5: minute hour day-of-month month day-of-week"
        )
    try:
        due_time = next(iter(CronSim(cron, _LONG_AGO)), None)
    except CronSimError as error:
        raise ValueError(f"“{cron}” is not a cron expression: {str(error).lower()}") from error
    if due_time is None:
        raise ValueError(f"“{cron}” is never due")


def next_due(cron: str, zone: ZoneInfo, after: datetime) -> datetime:
    """Return the first due time after a moment, in UTC.

    Raises:
        ValueError: There is no later due time.
    """
    for due_at in _due_times(cron, zone, after):
        return due_at
    raise ValueError(f"“{cron}” is never due after {after:%Y-%m-%d}")


def latest_due(cron: str, zone: ZoneInfo, first: datetime, now: datetime) -> datetime:
    """Return the last due time up to `now`, in UTC; `first` is a due time in the past."""
    for window in _WINDOWS:
        latest = _last_between(cron, zone, max(first, now - window), now)
        if latest is not None or now - window <= first:
            return latest or first
    return _last_between(cron, zone, first, now) or first


def _last_between(cron: str, zone: ZoneInfo, after: datetime, until: datetime) -> datetime | None:
    latest = None
    for due_at in _due_times(cron, zone, after):
        if due_at > until:
            break
        latest = due_at
    return latest


def _due_times(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Yield due times in UTC, each later than the previous one and than `after`.

    The library repeats a moment at a gap, and starts again after the second occurrence of an hour.
    """
    last = after.astimezone(UTC)
    for local in CronSim(cron, after.astimezone(zone)):
        due_at = local.astimezone(UTC)
        if due_at > last:
            last = due_at
            yield due_at
