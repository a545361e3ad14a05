"""The scheduler's thread: nothing is lost between its first look and the first event."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
import watchfiles

from chordwise.settings import InboxSettings, Settings
from scheduler.inbox import InboxWatcher
from tests.fakes.pipeline import a_pipeline

Changes = set[tuple[watchfiles.Change, str]]


def a_watcher(settings: Settings, folder: Path, stop: Event) -> InboxWatcher:
    """Return what watches a folder until `stop`."""
    changed = settings.model_copy(update={"inbox": InboxSettings(folders=(folder,))})
    return InboxWatcher(a_pipeline(changed).context, stop)


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
