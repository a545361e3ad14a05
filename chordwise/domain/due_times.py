"""When a schedule is due: cron expressions in a time zone, through changes of its clock.

At a fixed time of day (“0 2 * * *”), a time that the clock skips is due right after the gap, and
one that the clock shows twice is due the first time only. Where minute or hour begins with `*`,
such as “*/30 * * * *”, what counts is the time that passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_FIELDS = 5
_LONG_AGO = datetime(2000, 1, 1)  # noqa: DTZ001 - only tells whether the expression can be read
# Looking back, the shortest of them that holds a due time decides: few steps, however often it is.
_WINDOWS = (timedelta(hours=1), timedelta(days=1), timedelta(days=31))


def check(cron: str) -> None:
    """Refuse an expression that is never due or cannot be read.

    Raises:
        ValueError: It has not five fields, one of them is wrong, or no day fits.
    """
    fields = len(cron.split())
    if fields != _FIELDS:
        raise ValueError(
            f"“{cron}” has {fields} fields instead of 5: minute hour day-of-month month day-of-week"
        )
    try:
        found = next(iter(CronSim(cron, _LONG_AGO)), None)
    except CronSimError as error:
        raise ValueError(f"“{cron}” is no cron expression: {str(error).lower()}") from error
    if found is None:
        raise ValueError(f"“{cron}” is never due")


def next_due(cron: str, zone: ZoneInfo, after: datetime) -> datetime:
    """Return the first due time after a moment, in UTC.

    Raises:
        ValueError: There is none.
    """
    for due_at in _due_times(cron, zone, after):
        return due_at
    raise ValueError(f"“{cron}” is not due any more after {after:%Y-%m-%d}")


def latest_due(cron: str, zone: ZoneInfo, first: datetime, now: datetime) -> datetime:
    """Return the last due time up to `now`, in UTC; `first` is one that has come already."""
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
    """Yield due times in UTC, each later than the one before and all later than `after`.

    The library works on the clock's own time: two times in a gap end at the same moment, and after
    the second showing of an hour it starts again at the first.
    """
    last = after.astimezone(UTC)
    for local in CronSim(cron, after.astimezone(zone)):
        due_at = local.astimezone(UTC)
        if due_at > last:
            last = due_at
            yield due_at
