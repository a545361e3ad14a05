"""Tests of inboxes: files are found, taken, submitted and delivered, whatever their names."""

from __future__ import annotations

import os
import socket
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
import structlog
import watchfiles

from chordwise.errors import ConfigurationError, ExitCode
from chordwise.pipeline.inbox import scan, watch
from chordwise.pipeline.inbox.folders import inboxes_of
from chordwise.pipeline.inbox.scan import Refused
from chordwise.settings import InboxSettings, Profile, Settings
from scheduler.inbox import InboxWatcher
from scheduler.inbox import watch as watch_inboxes
from tests.fakes.inbox_watch import (
    LETTER,
    OTHER,
    QUIET_SECONDS,
    STABILITY_SECONDS,
    WatchedInbox,
    intake,
    jobs,
    watched,
)
from tests.fakes.pipeline import SCRIPTED, Pipeline, a_pipeline, quoting_the_text
from tests.fakes.processes import wait_until


def test_a_file_is_read_in_place_and_then_moved_to_done(inbox: WatchedInbox) -> None:
    dropped = inbox.drop("letters/2026/a.txt", LETTER)
    before = inbox.folders.hashes()

    inbox.watch.tick()
    inbox.wait(4.9)
    assert inbox.unclaimed == [dropped]
    inbox.wait(0.2)
    assert inbox.unclaimed == []
    inbox.wait(5)
    assert dropped.exists()
    assert not inbox.folders.done.exists()
    inbox.work()
    inbox.wait(1)

    delivered = inbox.folders.done / "letters" / "2026" / "a.txt"
    note = inbox.folders.note(delivered)
    assert inbox.folders.hashes() == before == {str(note["sha256"]): 1}
    assert delivered.read_text("utf-8") == LETTER
    assert (note["outcome"], note["profile"]) == ("done", "letters")
    assert note["run"] == "inbox-letters-20261125-0213"
    assert not dropped.exists()
    assert inbox.pipeline.value("SELECT source FROM intakes") == str(dropped)


def test_a_run_is_closed_after_a_time_without_new_files(inbox: WatchedInbox) -> None:
    """Each profile has its own run; that of the deepest folder applies."""
    inbox.drop("a.txt", LETTER)
    inbox.take()
    inbox.drop("b.txt", OTHER)
    inbox.take()
    inbox.wait(QUIET_SECONDS)
    for name in ("c.txt", "letters/b.txt", "letters/bills/c.txt"):
        inbox.drop(name, f"{name}: {LETTER} {OTHER}")
    inbox.deliver()

    counts = "SELECT name, coalesce(found_count, 0) FROM runs ORDER BY name"
    assert inbox.pipeline.rows(counts) == [
        ("inbox-20261125-0213", 2),
        ("inbox-20261125-0213-2", 1),
        ("inbox-bills-20261125-0213", 1),
        ("inbox-letters-20261125-0213", 1),
    ]
    inbox.wait(QUIET_SECONDS)
    balance = "SELECT bool_and(intakes_balance AND jobs_balance) FROM run_accounts"
    assert inbox.pipeline.value(balance) is True


def test_the_same_content_is_analyzed_once(inbox: WatchedInbox) -> None:
    inbox.drop("a.txt", LETTER)
    inbox.drop("b.txt", LETTER)
    inbox.deliver()
    inbox.wait(QUIET_SECONDS)
    calls = len(inbox.pipeline.model.requests)
    inbox.drop("a.txt", LETTER)
    inbox.deliver()

    first, second = (inbox.folders.note(inbox.folders.done / name) for name in ("a.txt", "b.txt"))
    third = inbox.folders.note(inbox.folders.done / "a (2).txt")
    assert len(inbox.pipeline.model.requests) == calls
    assert intake(second)["outcome"] == "duplicate"
    assert intake(second)["same_as_intake"] == intake(first)["id"]
    (job,) = jobs(intake(third))
    assert job["reused_from"] == jobs(intake(first))[0]["id"]


def test_a_side_car_overrides_the_profile_for_its_file(inbox: WatchedInbox) -> None:
    """It may arrive within the delay."""
    path = inbox.drop("letters/a.txt", LETTER)
    inbox.watch.tick()
    inbox.wait(4)
    inbox.drop("letters/a.txt.chordwise.toml", 'types = ["summary"]\nmodel = "extractive"')
    inbox.wait(4)
    assert path in inbox.unclaimed

    inbox.deliver()

    beside = inbox.folders.done / "letters" / "a.txt.chordwise.toml"
    query = "SELECT model || ' ' || (options ->> 'instructions') FROM jobs"
    assert inbox.pipeline.value(query) == "extractive who writes to whom"
    assert "extractive" in beside.read_text("utf-8")
    assert not path.with_name(beside.name).exists()


BROKEN = {
    "types = [": "not valid TOML",
    f"types = {'[' * 3_000}": "not valid TOML",
    f"budget_usd = {'9' * 5_000}": "not valid TOML",
    f"a{'.a' * 2_000} = 1": "a key in it, is too long",
    "".join(f"k{number} = 1\n" for number in range(9)): "unknown setting k4.",
    "colour = 'red'": "colour",
    "folder = '/etc'": "sets folder",
    "model = 'nobody'": "no model named",
    "types = ['extraction']\nschema = '/etc/passwd'": "not a TOML or JSON file below",
    "types = ['extraction']\nschema = '../x.json'": "not a TOML or JSON file below",
    "types = ['extraction']\nschema = 'none.json'": "cannot be read",
    "labels = ['one']": "two labels",
}


def test_a_file_with_an_invalid_side_car_is_moved_to_failed(inbox: WatchedInbox) -> None:
    """Opening a named pipe as a side-car would wait until it is written to."""
    for number, side_car in enumerate(BROKEN):
        inbox.drop(f"{number}.txt.chordwise.toml", side_car)
        inbox.drop(f"{number}.txt", LETTER)
    os.mkfifo(inbox.folders.inbox / "pipe.txt.chordwise.toml")
    inbox.drop("pipe.txt", LETTER)

    inbox.deliver()

    for number, (side_car, words) in enumerate(BROKEN.items()):
        file = inbox.folders.failed / f"{number}.txt"
        note = inbox.folders.note(file)
        assert words in str(note["message"])
        assert (note["outcome"], note["intakes"]) == ("failed", [])
        assert file.with_name(f"{file.name}.chordwise.toml").read_text("utf-8") == side_car
    note = inbox.folders.note(inbox.folders.failed / "pipe.txt")
    assert "named pipe" in str(note["message"])
    assert inbox.pipeline.value("SELECT count(*) FROM jobs") == 0


def test_the_row_of_a_file_has_the_first_error(inbox: WatchedInbox) -> None:
    inbox.drop("a.txt", LETTER)
    inbox.drop("b.txt", OTHER)
    dropped = inbox.drop("c.txt", "")
    inbox.drop("d.txt.chordwise.toml", "types = [")
    inbox.drop("d.txt", LETTER)
    inbox.take()
    inbox.pipeline.execute(
        "UPDATE jobs SET status = 'failed', error_code = 'refused', error_message = 'No.',"
        " hint = 'Ask otherwise.' FROM intakes AS i"
        " WHERE i.id = intake_id AND i.source LIKE '%b.txt'"
    )

    inbox.work()
    inbox.wait(1)

    rows = inbox.pipeline.rows("SELECT reason, message, hint FROM inbox_files ORDER BY name")
    notes = [inbox.folders.note(inbox.folders.failed / f"{name}.txt") for name in "bcd"]
    job, empty = jobs(intake(notes[0]))[0], intake(notes[1])
    assert rows == [
        (None, None, None),
        ("refused", "No.", "Ask otherwise."),
        ("empty", empty["message"], empty["hint"]),
        tuple(notes[2][name] for name in ("reason", "message", "hint")),
    ]
    assert (job["code"], job["message"], job["hint"]) == rows[1]
    assert (job["status"], job["attempts"]) == ("failed", 0)
    assert empty["outcome"] == "empty"
    assert str(empty["message"]).startswith(f"{dropped} ")
    assert empty["hint"]
    assert [note["message"] is None for note in notes] == [True, True, False]


def test_the_first_of_several_errors_is_in_the_row(inbox: WatchedInbox) -> None:
    """The order is that of the parts of a file; an error without a code has the job's status."""
    inbox.drop("a.csv.chordwise.toml", 'text_column = "text"')
    inbox.drop("a.csv", f"text\n{LETTER}\n{OTHER}\n{LETTER} {OTHER}\n")
    inbox.take()
    inbox.pipeline.execute(
        "UPDATE jobs SET status = CASE position WHEN 0 THEN 'succeeded' ELSE 'cancelled' END,"
        " error_message = position FROM inbox_intakes AS i WHERE i.intake_id = jobs.intake_id"
    )
    inbox.wait(1)

    rows = inbox.pipeline.rows("SELECT status, reason, message FROM inbox_files")
    assert rows == [("failed", "cancelled", "1")]


def test_no_file_is_overwritten(inbox: WatchedInbox, tmp_path: Path) -> None:
    """A link in done moves no file elsewhere: its author may have fewer rights."""
    elsewhere, done = tmp_path / "elsewhere", inbox.folders.done
    elsewhere.mkdir()
    done.mkdir()
    (done / "letters").symlink_to(elsewhere)
    (done / "a.txt").write_text("mine", "utf-8")
    (done / "a (2).txt.json").write_text("mine, too", "utf-8")
    inbox.drop("a.txt", LETTER)
    inbox.drop("letters/b.txt", LETTER)

    inbox.deliver()

    assert (done / "a.txt").read_text("utf-8") == "mine"
    assert (done / "a (2).txt.json").read_text("utf-8") == "mine, too"
    assert (done / "a (3).txt").read_text("utf-8") == LETTER
    assert (done / "b.txt").read_text("utf-8") == LETTER
    assert list(elsewhere.iterdir()) == []


def test_a_special_file_is_refused_once_and_left_in_place(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that contradicts its name fails, and one is taken once it is acceptable."""
    folder, outside = inbox.folders.inbox, inbox.folders.root / "outside.txt"
    (folder / "link.txt").symlink_to("/etc/passwd")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe.txt")
    twin = inbox.drop("twin.txt", OTHER)
    outside.hardlink_to(twin)
    with socket.socket(socket.AF_UNIX) as server, structlog.testing.capture_logs() as logs:
        monkeypatch.chdir(folder)  # the path of a socket must be short
        server.bind("socket.txt")
        inbox.drop("bad.pdf", "%garbage..")
        inbox.drop("good.txt", "%garbage..")
        for _ in range(4):
            inbox.deliver()
            inbox.watch.record_changes([folder / "link.txt"])

    refused = [Path(str(line["file"])).name for line in logs if line["event"] == "inbox.refused"]
    left = ["link.txt", "loop", "pipe.txt", "socket.txt", "twin.txt"]
    assert sorted(refused) == left
    assert sorted(path.name for path in inbox.left) == left
    assert (inbox.folders.done / "good.txt").exists()
    mislabeled = intake(inbox.folders.note(inbox.folders.failed / "bad.pdf"))
    assert (mislabeled["outcome"], mislabeled["reason"]) == ("unreadable", "mislabeled")
    assert ".txt" in str(mislabeled["hint"])
    outside.unlink()
    inbox.watch.record_changes([twin])
    inbox.deliver()
    assert (inbox.folders.done / "twin.txt").exists()


ODD_NAMES = (
    b"new\nline.txt", b"-rf.txt", b"=cmd().txt", "\u202etxt.exe.txt".encode(), b"\xff\xfe.txt",
    b"back\\..\\slash.txt", b"x" * 251 + b".txt", b"tab\t\x07.txt",
    *(unicodedata.normalize(form, "Köln.txt").encode() for form in ("NFC", "NFD")),
)  # fmt: skip


def test_unusual_names_are_unchanged(inbox: WatchedInbox) -> None:
    for number, name in enumerate(ODD_NAMES):
        path = inbox.folders.inbox / os.fsdecode(name)
        path.write_text(f"{number}. {LETTER}", "utf-8")
        inbox.watch.record_changes([path])

    inbox.deliver()

    arrived = {os.fsencode(path.name) for path in inbox.folders.done.iterdir()}
    assert len(arrived) == 2 * len(ODD_NAMES)
    assert arrived > {*ODD_NAMES}
    for (shown,) in inbox.pipeline.rows("SELECT name FROM inbox_files"):
        assert str(shown).isprintable()


def test_a_file_without_an_event_is_found(inbox: WatchedInbox) -> None:
    """The listener requests a scan at its start, for files before the first event."""
    silent, later = (inbox.folders.inbox / name for name in ("silent.txt", "later.txt"))
    inbox.watch.tick()
    silent.write_text(LETTER, "utf-8")

    inbox.wait(299)
    inbox.wait(100)
    assert silent.exists()
    inbox.wait(5)
    inbox.work()
    inbox.wait(1)
    assert (inbox.folders.done / "silent.txt").exists()

    later.write_text(OTHER, "utf-8")
    inbox.wait(2 * STABILITY_SECONDS)
    assert inbox.unclaimed == [later]
    inbox.watch.record_changes([inbox.folders.inbox])
    inbox.take()
    assert inbox.unclaimed == []


def test_each_inbox_has_separate_folders(tmp_path: Path, settings: Settings) -> None:
    """Folders without events, such as shares, are polled."""
    other = tmp_path / "scanner" / "in"
    profiles = {"scans": Profile(folder=other), "bills": Profile()}
    both = (tmp_path / "inbox", other)
    inbox = watched(tmp_path, settings, profiles, folders=both, polling=True, polling_seconds=2)
    inbox.watch.tick()
    for path in (both[0] / "bills" / "a.txt", both[1] / "bills" / "b.txt", both[1] / "c.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path.name}: {LETTER}", "utf-8")

    inbox.wait(2)
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


def test_a_file_open_for_writing_is_not_taken(inbox: WatchedInbox) -> None:
    path = inbox.drop("a.txt", LETTER)
    with path.open("a", encoding="utf-8") as file:
        for _ in range(5):
            inbox.wait(100)
        assert path in inbox.unclaimed
        file.write(OTHER)

    inbox.watch.record_changes([path])
    inbox.deliver()

    assert (inbox.folders.done / "a.txt").read_text("utf-8") == LETTER + OTHER


def test_a_turn_with_files_left_is_followed_by_the_next_at_once(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        inbox.drop(f"{number}.txt", f"{LETTER} {number}")
    inbox.watch.tick()
    inbox.now += STABILITY_SECONDS
    forget = inbox.watch._waiting.forget

    def forget_slowly(path: Path) -> None:
        forget(path)
        inbox.now += 0.3  # of half a second for a turn

    monkeypatch.setattr(inbox.watch._waiting, "forget", forget_slowly)
    monkeypatch.setattr(watch, "_BATCH", 1)

    turns = [(inbox.watch.tick(), len(inbox.unclaimed)) for _ in range(2)]
    assert turns == [(True, 1), (False, 0)]


@pytest.mark.nightly
def test_ten_thousand_files_are_scanned_in_bounded_memory(tmp_path: Path) -> None:
    """F10: the scan returns a limited number of files, the oldest ones."""
    for number in range(10_000):
        path = tmp_path / f"{number % 100}" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, ns=(0, (number * 7919) % 10_000))
    refused: list[Refused] = []

    files = scan.oldest(scan.files(tmp_path, refused.append), 500)

    assert [file[1][0].modified_ns for file in files] == list(range(500))
    assert refused == []


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("in", "in/deeper"), "overlap"),
        (("in", "done"), "overlap"),
        (("failed", "in"), "overlap"),
        ((".", "in"), "overlap"),
        (("in",), r"profiles\.x\.folder"),
    ],
)
def test_overlapping_inboxes_are_refused(
    tmp_path: Path, folders: tuple[str, ...], said: str
) -> None:
    """No file may be found twice, and a finished file must not be taken again.

    The folder of a profile must be inside the inbox.
    """
    inbox = InboxSettings(folders=tuple(tmp_path / folder for folder in folders))
    profiles = {"x": Profile(folder=Path("../elsewhere"))}

    with pytest.raises(ConfigurationError, match=said):
        inboxes_of(Settings(inbox=inbox, profiles=profiles))


@pytest.mark.parametrize("folder", ["in/bills", "in/other/../bills", "link"])
def test_two_profiles_for_one_folder_are_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "in" / "bills").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "in" / "bills")
    inbox = InboxSettings(folders=(tmp_path / "in",))
    profiles = {"bills": Profile(), "more": Profile(folder=tmp_path / folder)}

    with pytest.raises(ConfigurationError) as caught:
        inboxes_of(Settings(inbox=inbox, profiles=profiles))

    assert (
        caught.value.what == f"profiles.bills and profiles.more are both for {tmp_path}/in/bills."
    )
    assert caught.value.exit_code == ExitCode.CONFIGURATION
    assert "another folder" in caught.value.hint


@pytest.mark.parametrize("enabled", [False, True])
def test_schedules_may_share_a_folder_without_an_inbox(tmp_path: Path, *, enabled: bool) -> None:
    inbox = InboxSettings(folders=(tmp_path / "in",), enabled=enabled)
    shared = tmp_path / ("out" if enabled else "in/bills")
    profiles = {name: Profile(folder=shared) for name in ("bills", "more")}

    assert shared in inboxes_of(Settings(inbox=inbox, profiles=profiles)).bindings


Changes = set[tuple[watchfiles.Change, str]]

PATIENCE_SECONDS = 20.0


@pytest.fixture
def listened_to(tmp_path: Path, settings: Settings) -> Iterator[Pipeline]:
    """Watch a folder with such rare full scans that only events have an effect."""
    folder = tmp_path / "deep" / "inbox"  # a missing folder has no events, so it is created
    watch = InboxSettings(folders=(folder,), stability_seconds=0.2)
    changes = {"inbox": watch, "model": SCRIPTED}
    pipeline = a_pipeline(settings.model_copy(update=changes), quoting_the_text, repeat_last=True)
    stop = Event()
    watching = Thread(target=watch_inboxes, args=(pipeline.context, stop))
    watching.start()
    wait_until(folder.is_dir, PATIENCE_SECONDS, "the inbox is made")
    yield pipeline
    stop.set()
    watching.join(PATIENCE_SECONDS)


def is_taken(listened_to: Pipeline, name: bytes) -> None:
    (folder,) = listened_to.context.settings.inbox.folders
    (Path(folder) / os.fsdecode(name)).write_bytes(b"The name of this file: " + name)
    count = "SELECT count(*) FROM inbox_files"
    before = listened_to.value(count)
    wait_until(lambda: listened_to.value(count) != before, PATIENCE_SECONDS, f"{name!r} is taken")


def test_a_new_listener_requests_one_scan_of_the_folder(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan finds files between the first scan and the first event."""
    changed = settings.model_copy(update={"inbox": InboxSettings(folders=(tmp_path,))})
    watcher = InboxWatcher(a_pipeline(changed).context, Event())
    told: list[Changes] = [set(), {(watchfiles.Change.added, f"{tmp_path}/a.txt")}, set()]

    def watch(*_: object, **options: object) -> Iterator[Changes]:
        assert options["yield_on_timeout"]
        yield from told

    monkeypatch.setattr(watchfiles, "watch", watch)
    watcher._forward_events(tmp_path)

    events = watcher._watch._events
    assert [events.get() for _ in range(events.qsize())] == [tmp_path, tmp_path / "a.txt"]


def test_a_name_that_is_not_utf8_does_not_end_the_events(listened_to: Pipeline) -> None:
    """F06: the library fails on such a name; the file and later ones are taken.

    F07: no restart is needed after an inbox was moved or a disk was mounted there.
    """
    (folder,) = map(Path, listened_to.context.settings.inbox.folders)
    for name in (b"first.txt", b"\xff\xfe.txt", b"later.txt", b"\xfe.txt", b"last.txt"):
        is_taken(listened_to, name)
    for number in range(2):
        folder.rename(folder.with_name(f"aside-{number}"))
        folder.mkdir()

        is_taken(listened_to, b"second.txt")
        is_taken(listened_to, b"third.txt")
