"""The scheduler's thread that watches: what the system tells of a folder, and what it cannot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
import watchfiles

from chordwise.settings import InboxSettings, Settings
from scheduler.inbox import InboxWatcher, watched
from tests.fakes.pipeline import SCRIPTED, a_pipeline, quoting_the_text
from tests.fakes.processes import wait_until

Changes = set[tuple[watchfiles.Change, str]]

PATIENCE_SECONDS = 20.0


@pytest.fixture
def inbox(tmp_path: Path, settings: Settings) -> Iterator[Path]:
    """Watch a folder, with the full look so rare that only events count."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    watch = InboxSettings(folders=(folder,), stability_seconds=0.2)
    changes = {"inbox": watch, "model": SCRIPTED}
    pipeline = a_pipeline(settings.model_copy(update=changes), quoting_the_text, repeat_last=True)
    with watched(pipeline.context, Event()):
        yield folder


def a_watcher(settings: Settings, folder: Path, stop: Event) -> InboxWatcher:
    """Return what watches a folder until `stop`."""
    changed = settings.model_copy(update={"inbox": InboxSettings(folders=(folder,))})
    return InboxWatcher(a_pipeline(changed).context, stop)


def is_taken(inbox: Path, name: bytes) -> None:
    """Drop a file, and wait until it has been taken."""
    path = inbox / os.fsdecode(name)
    path.write_bytes(b"Somebody called this file " + name)
    wait_until(lambda: not path.exists(), PATIENCE_SECONDS, f"{name!r} is taken")


def test_an_inbox_is_made_before_anybody_listens(settings: Settings, tmp_path: Path) -> None:
    """For the system tells nothing of a folder that is not there, and is asked again much later."""
    stop = Event()
    stop.set()

    a_watcher(settings, tmp_path / "deep" / "inbox", stop)._watch_on()

    assert (tmp_path / "deep" / "inbox").is_dir()


def test_whoever_begins_to_listen_has_the_folder_looked_at(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: what came after the first look and before the first event is found then."""
    watcher = a_watcher(settings, tmp_path, Event())
    told: list[Changes] = [set(), {(watchfiles.Change.added, f"{tmp_path}/a.txt")}, set()]

    def watch(*_: object, **options: object) -> Iterator[Changes]:
        assert options["yield_on_timeout"]
        yield from told

    monkeypatch.setattr(watchfiles, "watch", watch)
    watcher._hand_on(tmp_path)

    events = watcher._watch._events
    assert [events.get() for _ in range(events.qsize())] == [tmp_path, tmp_path / "a.txt"]


def test_a_name_that_is_no_utf8_does_not_end_the_events(inbox: Path) -> None:
    """F06: the library gives up over such a name; the file is taken, and so is what comes later."""
    for name in (b"first.txt", b"\xff\xfe.txt", b"later.txt", b"\xfe.txt", b"last.txt"):
        is_taken(inbox, name)

    assert list(inbox.iterdir()) == []


def test_a_folder_that_is_made_anew_is_listened_to(inbox: Path) -> None:
    """F07: whoever moves an inbox away, or mounts a disk there, need not restart anything."""
    is_taken(inbox, b"first.txt")
    for number in range(2):
        inbox.rename(inbox.with_name(f"aside-{number}"))
        inbox.mkdir()

        is_taken(inbox, b"second.txt")
        is_taken(inbox, b"third.txt")
