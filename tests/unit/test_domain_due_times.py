"""Tests of due times, which follow local time through every clock change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain import due_times

BERLIN = ZoneInfo("Europe/Berlin")
# Zones that skip or repeat hours at night or at midnight, half an hour, a whole day, or never.
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "UTC",
)

zones = st.sampled_from(ZONES).map(ZoneInfo)
moments = st.datetimes(
    min_value=datetime(2010, 1, 1),  # noqa: DTZ001 - Hypothesis wants naive bounds
    max_value=datetime(2030, 1, 1),  # noqa: DTZ001 - as above
    timezones=st.just(UTC),
)
times_of_day = st.tuples(st.integers(0, 23), st.integers(0, 59))


def daily(hour: int, minute: int) -> str:
    return f"{minute} {hour} * * *"


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).astimezone(UTC)


def days_of(cron: str, zone: ZoneInfo, first: datetime, count: int) -> list[datetime]:
    times = [due_times.next_due(cron, zone, first)]
    while len(times) < count:
        times.append(due_times.next_due(cron, zone, times[-1]))
    return times


def exists(local: datetime) -> bool:
    return local.astimezone(UTC).astimezone(local.tzinfo).replace(fold=0) == local


@pytest.mark.parametrize(("minutes", "next_minute"), [("30", "30"), ("0,30", "00")])
def test_a_time_in_a_skipped_hour_is_due_once_after_the_gap(minutes: str, next_minute: str) -> None:
    """On 29 March 2026 the clock changes from 2:00 to 3:00 in Berlin."""
    times = days_of(f"{minutes} 2 * * *", BERLIN, at("2026-03-28T12:00"), 2)

    assert times == [at("2026-03-29T03:00"), at(f"2026-03-30T02:{next_minute}")]


@pytest.mark.parametrize("minutes", range(0, 180, 5))
def test_a_time_in_a_repeated_hour_is_due_once(minutes: int) -> None:
    """On 25 October 2026, 2:30 occurs twice in Berlin; only the first occurrence is due."""
    first = at("2026-10-25T02:30")
    asked_at = at("2026-10-25T01:00") + timedelta(minutes=minutes)

    due_at = due_times.next_due("30 2 * * *", BERLIN, asked_at)

    assert due_at == (first if asked_at < first else at("2026-10-26T02:30"))


def test_a_half_hourly_schedule_follows_elapsed_time() -> None:
    autumn = days_of("*/30 * * * *", BERLIN, at("2026-10-25T01:45"), 5)
    spring = days_of("*/30 * * * *", BERLIN, at("2026-03-29T01:15"), 3)

    for times in (autumn, spring):
        assert {b - a for a, b in pairwise(times)} == {timedelta(minutes=30)}


@given(zones, moments, times_of_day)
def test_a_daily_time_is_due_once_on_every_day(
    zone: ZoneInfo, moment: datetime, time_of_day: tuple[int, int]
) -> None:
    hour, minute = time_of_day
    start = moment.astimezone(zone).replace(hour=12, minute=0, second=0, microsecond=0)

    times = days_of(daily(hour, minute), zone, start.astimezone(UTC), 4)

    assert times == sorted(set(times))
    for due_at in times:
        local = due_at.astimezone(zone)
        expected = local.replace(hour=hour, minute=minute, fold=0)
        if (local.hour, local.minute) != (hour, minute):
            before = (due_at - timedelta(seconds=1)).astimezone(zone)
            assert before.utcoffset() != local.utcoffset()
            assert not exists(expected) or expected.date() != before.date()
        else:
            assert due_at == expected.astimezone(UTC)


@given(
    zones,
    moments,
    st.sampled_from(["0 2 * * *", "*/15 * * * *", "30 1 * * 1-5", "0 0 1 * *", "0 0 1 1 *"]),
    st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=60)),
)
def test_the_next_time_is_later_and_no_time_is_skipped(
    zone: ZoneInfo, moment: datetime, cron: str, downtime: timedelta
) -> None:
    """The result is the same at any moment before it; after a downtime the latest time counts."""
    due_at = due_times.next_due(cron, zone, moment)
    latest = due_times.latest_due(cron, zone, due_at, due_at + downtime)

    assert due_at > moment
    between = moment + (due_at - moment) / 2
    assert due_times.next_due(cron, zone, between) == due_at
    assert due_times.next_due(cron, zone, due_at - timedelta(seconds=1)) == due_at
    assert due_at <= latest <= due_at + downtime
    assert due_times.next_due(cron, zone, latest) > due_at + downtime


@pytest.mark.parametrize(
    ("cron", "complaint"),
    [
        ("0 2 * *", "4 fields instead of 5"),
        ("0 0 2 * * *", "6 fields instead of 5"),
        ("60 2 * * *", "bad minute"),
        ("0 2 30 2 *", "bad day-of-month"),
        ("", "0 fields"),
        ("@daily", "1 fields"),
    ],
)
def test_an_invalid_expression_is_rejected(cron: str, complaint: str) -> None:
    for good in ("0 2 * * MON-FRI", "*/5 8-18 1,15 JAN *", "0 0 L * *"):
        due_times.check(good)
    with pytest.raises(ValueError, match=complaint):
        due_times.check(cron)
