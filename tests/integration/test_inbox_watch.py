"""What a watch looks at, and when: events, full looks, polling, and the bounds of its memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
import watchfiles

from chordwise.errors import ConfigurationError, ExitCode
from chordwise.pipeline.inbox import scan, watch
from chordwise.pipeline.inbox.folders import places
from chordwise.pipeline.inbox.scan import Refused
from chordwise.settings import InboxSettings, ProfileSettings, Settings
from scheduler.inbox import InboxWatcher
from tests.fakes.inbox_watch import LETTER, OTHER, STABILITY_SECONDS, WatchedInbox, watched
from tests.fakes.pipeline import SCRIPTED, a_pipeline, quoting_the_text
from tests.fakes.processes import wait_until


def test_what_no_event_told_of_is_found(inbox: WatchedInbox) -> None:
    """A full look every five minutes is the net below the events."""
    inbox.watch.tick()
    (inbox.folders.inbox / "silent.txt").write_text(LETTER, "utf-8")

    inbox.wait(299)
    inbox.wait(100)
    assert (inbox.folders.inbox / "silent.txt").exists()
    inbox.wait(5)
    inbox.work()
    inbox.wait(1)

    assert (inbox.folders.done / "silent.txt").exists()


def test_a_folder_that_is_pointed_at_is_looked_at(inbox: WatchedInbox) -> None:
    """The listener does so at its start, for files that came before the first event."""
    inbox.watch.tick()
    (inbox.folders.inbox / "silent.txt").write_text(LETTER, "utf-8")
    inbox.wait(2 * STABILITY_SECONDS)
    assert inbox.pipeline.value("SELECT count(*) FROM inbox_files") == 0

    inbox.watch.disturb([inbox.folders.inbox])
    inbox.take()

    assert inbox.pipeline.value("SELECT count(*) FROM inbox_files") == 1


def test_a_share_that_tells_nothing_is_polled(tmp_path: Path, settings: Settings) -> None:
    """A file is found by the next look, and taken once it was quiet from then on."""
    inbox = watched(tmp_path, settings, polling=True, polling_seconds=2)
    inbox.watch.tick()
    (inbox.folders.inbox / "silent.txt").write_text(LETTER, "utf-8")

    inbox.wait(2)
    inbox.wait(STABILITY_SECONDS)

    assert inbox.pipeline.rows("SELECT name FROM inbox_files") == [("silent.txt",)]
    inbox.close()


def test_each_inbox_has_places_of_its_own(tmp_path: Path, settings: Settings) -> None:
    """What came out of one goes beside that one; a profile may be for one of them alone."""
    other = tmp_path / "scanner" / "in"
    profiles = {"scans": ProfileSettings(folder=other), "bills": ProfileSettings()}
    both = (tmp_path / "inbox", other)
    inbox = watched(tmp_path, settings, profiles, folders=both)
    for path in (both[0] / "bills" / "a.txt", both[1] / "bills" / "b.txt", both[1] / "c.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path.name}: {LETTER}", "utf-8")

    inbox.deliver()

    assert inbox.pipeline.rows("SELECT name, profile, status FROM inbox_files ORDER BY name") == [
        ("bills/a.txt", "bills", "done"),
        ("bills/b.txt", "bills", "done"),
        ("c.txt", "scans", "done"),
    ]
    for name in ("done/bills/a.txt", "scanner/done/bills/b.txt", "scanner/done/c.txt"):
        assert (tmp_path / name).exists()
        assert (tmp_path / f"{name}.json").exists()
    inbox.close()


def test_a_side_car_within_the_delay_counts(inbox: WatchedInbox) -> None:
    """It may come after its file, which then has to be quiet again."""
    path = inbox.drop("a.txt", LETTER)
    inbox.watch.tick()
    inbox.wait(4)
    inbox.drop("a.txt.chordwise.toml", "instructions = 'late'")
    inbox.wait(4)
    assert path.exists()

    inbox.wait(5)

    asked = "SELECT options ->> 'instructions' FROM jobs"
    assert inbox.pipeline.value(asked) == "late"


def test_a_writer_is_waited_for_however_long(inbox: WatchedInbox) -> None:
    """As long as a program holds the file open for writing, it is not complete."""
    path = inbox.drop("a.txt", LETTER)
    with path.open("a", encoding="utf-8") as file:
        for _ in range(5):
            inbox.wait(100)
        assert path.exists()
        file.write(OTHER)

    inbox.watch.disturb([path])
    inbox.deliver()

    assert (inbox.folders.done / "a.txt").read_text("utf-8") == LETTER + OTHER


def test_a_crowd_waits_for_no_pause(inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that was too short for all says so: the next one begins at once."""
    for number in range(3):
        inbox.drop(f"{number}.txt", f"{LETTER} {number}")
    inbox.watch.tick()
    inbox.now += STABILITY_SECONDS
    forget = inbox.watch._waiting.forget

    def forget_slowly(path: Path) -> None:
        forget(path)
        inbox.now += 0.3  # of the half second of a turn

    monkeypatch.setattr(inbox.watch._waiting, "forget", forget_slowly)
    monkeypatch.setattr(watch, "_BATCH", 1)

    assert [(inbox.watch.tick(), len(inbox.left)) for _ in range(2)] == [(True, 1), (False, 0)]


def test_one_watch_at_a_time(inbox: WatchedInbox) -> None:
    """A second process of the same home waits for its turn."""
    other = type(inbox.store)(inbox.folders.home)

    assert not other.acquire()

    inbox.store.release()
    assert other.acquire()
    other.release()


@pytest.mark.nightly
def test_ten_thousand_files_are_looked_at_in_bounded_memory(tmp_path: Path) -> None:
    """F10: only so many are returned, and they are the oldest."""
    for number in range(10_000):
        path = tmp_path / f"{number % 100}" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, ns=(0, (number * 7919) % 10_000))
    refused: list[Refused] = []

    found = scan.oldest(tmp_path, 500, refused.append)

    assert [each[1][0].modified_ns for each in found] == list(range(500))
    assert refused == []


@pytest.mark.parametrize(
    "folders", [("in", "in/deeper"), ("in", "done"), ("failed", "in"), (".", "in")]
)
def test_inboxes_that_overlap_are_refused(tmp_path: Path, folders: tuple[str, ...]) -> None:
    """No file may be found twice, and what is done must not be taken again."""
    inbox = InboxSettings(folders=tuple(tmp_path / each for each in folders))

    with pytest.raises(ConfigurationError, match="overlap"):
        places(Settings(inbox=inbox))


def test_a_profile_stays_in_the_inbox(tmp_path: Path) -> None:
    """Its folder must not lead out of it by a relative path."""
    inbox = InboxSettings(folders=(tmp_path / "in",))
    profiles = {"x": ProfileSettings(folder=Path("../elsewhere"))}

    with pytest.raises(ConfigurationError, match=r"profiles\.x\.folder"):
        places(Settings(inbox=inbox, profiles=profiles))


@pytest.mark.parametrize("folder", ["in/bills", "in/other/../bills", "link"])
def test_two_profiles_for_one_folder_are_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "in" / "bills").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "in" / "bills")
    inbox = InboxSettings(folders=(tmp_path / "in",))
    profiles = {"bills": ProfileSettings(), "more": ProfileSettings(folder=tmp_path / folder)}

    with pytest.raises(ConfigurationError) as caught:
        places(Settings(inbox=inbox, profiles=profiles))

    assert (
        caught.value.what == f"profiles.bills and profiles.more are both for {tmp_path}/in/bills."
    )
    assert caught.value.exit_code == ExitCode.CONFIGURATION
    assert "another folder" in caught.value.hint


@pytest.mark.parametrize("enabled", [False, True])
def test_schedules_may_share_a_folder_that_is_not_watched(tmp_path: Path, *, enabled: bool) -> None:
    """Outside of every inbox, and with inboxes that are not watched, no file is taken out of it."""
    inbox = InboxSettings(folders=(tmp_path / "in",), enabled=enabled)
    shared = tmp_path / ("out" if enabled else "in/bills")
    profiles = {name: ProfileSettings(folder=shared) for name in ("bills", "more")}

    assert shared in places(Settings(inbox=inbox, profiles=profiles)).bindings


Changes = set[tuple[watchfiles.Change, str]]

PATIENCE_SECONDS = 20.0


@pytest.fixture
def listened_to(tmp_path: Path, settings: Settings) -> Iterator[Path]:
    """Watch a folder, with the full look so rare that only events count."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    watch = InboxSettings(folders=(folder,), stability_seconds=0.2)
    changes = {"inbox": watch, "model": SCRIPTED}
    pipeline = a_pipeline(settings.model_copy(update=changes), quoting_the_text, repeat_last=True)
    stop = Event()
    watcher = InboxWatcher(pipeline.context, stop)
    watcher.start()
    yield folder
    stop.set()
    watcher.join(PATIENCE_SECONDS)


def a_watcher(settings: Settings, folder: Path, stop: Event) -> InboxWatcher:
    changed = settings.model_copy(update={"inbox": InboxSettings(folders=(folder,))})
    return InboxWatcher(a_pipeline(changed).context, stop)


def is_taken(listened_to: Path, name: bytes) -> None:
    """Drop a file, and wait until it has been taken."""
    path = listened_to / os.fsdecode(name)
    path.write_bytes(b"Somebody called this file " + name)
    wait_until(lambda: not path.exists(), PATIENCE_SECONDS, f"{name!r} is taken")


def test_an_inbox_is_made_before_the_listener_starts(settings: Settings, tmp_path: Path) -> None:
    """For the system tells nothing of a folder that is not there, and is asked again much later."""
    stop = Event()
    stop.set()

    a_watcher(settings, tmp_path / "deep" / "inbox", stop)._watch_on()

    assert (tmp_path / "deep" / "inbox").is_dir()


def test_a_new_listener_has_the_folder_looked_at(
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


def test_a_name_that_is_no_utf8_does_not_end_the_events(listened_to: Path) -> None:
    """F06: the library gives up over such a name; the file is taken, and so is what comes later."""
    for name in (b"first.txt", b"\xff\xfe.txt", b"later.txt", b"\xfe.txt", b"last.txt"):
        is_taken(listened_to, name)

    assert list(listened_to.iterdir()) == []


def test_a_folder_that_is_made_anew_is_listened_to(listened_to: Path) -> None:
    """F07: after an inbox was moved or a disk mounted there, no restart is needed."""
    is_taken(listened_to, b"first.txt")
    for number in range(2):
        listened_to.rename(listened_to.with_name(f"aside-{number}"))
        listened_to.mkdir()

        is_taken(listened_to, b"second.txt")
        is_taken(listened_to, b"third.txt")
