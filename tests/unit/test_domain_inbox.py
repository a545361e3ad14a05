"""Tests of the rules of the inbox: names, completeness, profiles and repeated reports."""

from __future__ import annotations

import itertools
import os
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chordwise.domain.failure_backoff import FailureBackoff
from chordwise.domain.inbox import (
    Fingerprint,
    Sightings,
    is_inside,
    name_of_note,
    names_like,
    profile_of,
    side_car_name,
    side_car_owner,
)
from chordwise.readers.discovery import is_ignored

NAMES = st.text(min_size=1, max_size=300).filter(lambda name: "/" not in name and "\0" not in name)


def print_of(size: int = 1, modified_ns: int = 0) -> Fingerprint:
    return Fingerprint(inode=1, size=size, modified_ns=modified_ns)


@pytest.mark.parametrize(
    "name",
    [
        ".hidden", "._resource", ".DS_Store", ".~lock.letter.odt#", "~$letter.docx",
        "a.part", "a.PART", "a.tmp", "a.crdownload", "a.filepart", "a~",
        "Thumbs.db", "desktop.ini", "a.pdf.chordwise.toml", ".chordwise-01",
    ],
)  # fmt: skip
def test_files_that_are_not_documents_are_ignored(name: str) -> None:
    documents = ("a.txt", "party.pdf", "tmp", "a.toml", "-rf", "=cmd()", "uv.lock")

    assert is_ignored(name)
    assert not any(map(is_ignored, documents))


@given(name=NAMES)
def test_a_side_car_belongs_to_the_file_in_its_name(name: str) -> None:
    others = ("a.txt", ".chordwise.toml", "chordwise.toml", "a.toml")

    assert side_car_owner(side_car_name(name)) == name
    assert side_car_owner(f"{name}.CHORDWISE.toml") == name
    assert {side_car_owner(other) for other in others} == {None}


@given(name=NAMES)
def test_alternative_names_are_unique_and_fit(name: str) -> None:
    cut = os.fsdecode(name.encode("utf-8", "surrogatepass")[:200])

    names = list(itertools.islice(names_like(cut), 12))

    assert names[0] == cut
    assert len(set(names)) == 12
    assert all(len(os.fsencode(name)) <= 255 for name in [*names, name_of_note(cut)])
    extension = os.path.splitext(cut)[1]  # noqa: PTH122 - of a name
    assert all(name.endswith(extension) for name in names)


def test_the_note_of_a_very_long_name_fits() -> None:
    """255 bytes leave no room for an extension, so whole characters are dropped."""
    name = "ü" * 127 + "x"

    assert name_of_note(name) == "ü" * 125 + ".json"


def test_the_deepest_folder_determines_the_profile() -> None:
    bindings = {PurePath("/in/mail"): "mail", PurePath("/in/mail/bills"): "bills"}

    assert profile_of(PurePath("/in/mail/bills/2026"), bindings) == "bills"
    assert profile_of(PurePath("/in/mail/other"), bindings) == "mail"
    assert profile_of(PurePath("/in/mailbox"), bindings) == ""


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "."])
def test_paths_that_leave_the_folder_are_detected(path: str) -> None:
    assert not is_inside(Path(path))
    assert is_inside(Path("a/..b/c"))


def test_a_file_is_ripe_after_a_time_without_events_and_changes() -> None:
    waiting, a, b = Sightings(5, limit=10), PurePath("/a"), PurePath("/b")
    waiting.replace([(a, (print_of(),)), (b, (print_of(),))], now=0)
    waiting.restart_quiet_period(a, now=2)

    assert [file.path for file in waiting.complete_files(now=4.9)] == []
    assert [file.path for file in waiting.complete_files(now=5)] == [b]

    waiting.replace([(a, (print_of(),)), (b, (print_of(size=2),))], now=6)
    assert [file.path for file in waiting.complete_files(now=7)] == [a]
    assert [file.path for file in waiting.complete_files(now=11)] == [a, b]

    # A change of a side-car also restarts the wait.
    waiting.replace([(a, (print_of(), print_of(size=9)))], now=12)
    assert waiting.complete_files(now=16) == []
    assert [file.path for file in waiting.complete_files(now=17)] == [a]


@given(ages=st.lists(st.integers(0, 50), max_size=40), limit=st.integers(1, 20))
def test_a_limited_number_of_files_is_returned_in_order_of_age(ages: list[int], limit: int) -> None:
    waiting = Sightings(1, limit=limit)
    listed = sorted((age, PurePath(f"/{number}")) for number, age in enumerate(ages))

    left_out = waiting.replace([(path, (print_of(modified_ns=age),)) for age, path in listed], 0)

    assert [file.prints[0].modified_ns for file in waiting.complete_files(now=1)] == sorted(ages)[
        :limit
    ]
    assert left_out == max(0, len(ages) - limit)


def test_a_processed_file_is_forgotten() -> None:
    waiting, a, b = Sightings(1, limit=10), PurePath("/a"), PurePath("/b")
    waiting.replace([(a, (print_of(),)), (b, (print_of(),))], now=0)

    waiting.forget(a)
    waiting.replace([], now=1)
    waiting.restart_quiet_period(a, now=1)

    assert len(waiting) == 0
    assert waiting.has_room


def test_a_failure_is_reported_once_and_retried_with_growing_delays() -> None:
    failures = FailureBackoff()

    news = [failures.record("a", reason, now=0) for reason in ("full", "full", "gone")]

    assert news == [True, False, True]
    assert failures.is_waiting("a", now=3.9)
    assert not failures.is_waiting("a", now=4)
    failures.clear("a")
    assert not failures.is_waiting("a", now=0)
    assert failures.record("a", "gone", now=0)

    # Only keys of the given type are removed.
    for key in ("there", 7):
        failures.record(key, "why", now=0)
    failures.keep_only({"there"}, of=str)
    assert [failures.is_waiting(key, now=0) for key in ("a", "there", 7)] == [False, True, True]
