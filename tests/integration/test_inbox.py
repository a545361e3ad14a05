"""Files of an inbox are taken, submitted and delivered, with a real database and real folders."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from chordwise.errors import ConfigurationError
from chordwise.pipeline.inbox import moving, scanning
from chordwise.pipeline.inbox.places import Place, places
from chordwise.pipeline.inbox.scanning import Refused
from chordwise.pipeline.inbox.taking import Taking
from chordwise.settings import InboxSettings, ProfileSettings, Settings
from tests.fakes.inbox_watch import QUIET_SECONDS, STABILITY_SECONDS, WatchedInbox, watched

LETTER = "Anna writes to Berta. She wants to know when the ferry leaves."
OTHER = "Berta answers Anna. The ferry leaves at noon."


@pytest.fixture
def inbox(tmp_path: Path, settings: Settings) -> Iterator[WatchedInbox]:
    """Watch an inbox with two profiles."""
    profiles = {
        "letters": ProfileSettings(instructions="who writes to whom"),
        "bills": ProfileSettings(folder=Path("letters/bills"), budget_usd=None),
    }
    found = watched(tmp_path, settings, profiles)
    yield found
    found.close()


def test_a_file_goes_through_the_store_to_done(inbox: WatchedInbox) -> None:
    """Taken after the delay, delivered after its analysis, found again in the same sub-folder."""
    dropped = inbox.drop("letters/2026/a.txt", LETTER)
    before = inbox.folders.hashes()

    inbox.watch.tick()
    inbox.wait(4.9)
    assert dropped.exists()
    inbox.wait(0.2)
    assert not dropped.exists()
    inbox.wait(5)
    assert not inbox.folders.done.exists()
    inbox.work()
    inbox.wait(1)

    delivered = inbox.folders.done / "letters" / "2026" / "a.txt"
    note = inbox.folders.note(delivered)
    assert inbox.folders.hashes() == before == {str(note["sha256"]): 1}
    assert delivered.read_text("utf-8") == LETTER
    assert (note["outcome"], note["profile"]) == ("done", "letters")
    assert note["run"] == "inbox-letters-20261125-0213"
    assert list(inbox.store.ids()) == []
    assert inbox.pipeline.value("SELECT source FROM intakes") == str(dropped)


def test_the_deepest_profile_counts(inbox: WatchedInbox) -> None:
    """Files of each profile form a run of their own, those without one, too."""
    for name in ("a.txt", "letters/b.txt", "letters/bills/c.txt"):
        inbox.drop(name, f"{name}: {LETTER}")

    inbox.take()

    names = (
        "SELECT array_agg(profile || ':' || runs.name ORDER BY profile)"
        " FROM inbox_files JOIN runs ON runs.id = run_id"
    )
    assert inbox.pipeline.value(names) == [
        ":inbox-20261125-0213",
        "bills:inbox-bills-20261125-0213",
        "letters:inbox-letters-20261125-0213",
    ]


def test_a_run_is_closed_when_no_file_comes_for_a_while(inbox: WatchedInbox) -> None:
    """Until then further files join it; afterwards the next one opens another."""
    inbox.drop("a.txt", LETTER)
    inbox.take()
    inbox.drop("b.txt", OTHER)
    inbox.take()
    inbox.wait(QUIET_SECONDS)
    inbox.drop("c.txt", f"{LETTER} {OTHER}")
    inbox.deliver()

    counts = "SELECT array_agg(name || ' ' || coalesce(found_count, 0) ORDER BY id) FROM runs"
    assert inbox.pipeline.value(counts) == ["inbox-20261125-0213 2", "inbox-20261125-0213-2 0"]
    inbox.wait(QUIET_SECONDS)
    balance = "SELECT bool_and(intakes_balance AND jobs_balance) FROM run_accounts"
    assert inbox.pipeline.value(balance) is True


def test_files_that_come_after_a_cancellation_get_another_run(inbox: WatchedInbox) -> None:
    """A run that was called off takes nothing more in."""
    inbox.drop("a.txt", LETTER)
    inbox.take()
    inbox.pipeline.execute("UPDATE runs SET status = 'cancelled'")

    inbox.drop("b.txt", OTHER)
    inbox.deliver()

    assert (inbox.folders.done / "b.txt").exists()
    assert inbox.pipeline.value("SELECT count(*) FROM runs") == 2


def test_the_same_content_is_analyzed_once(inbox: WatchedInbox) -> None:
    """In one run the second intake points to the first; in a later one the result is used again."""
    inbox.drop("a.txt", LETTER)
    inbox.drop("b.txt", LETTER)
    inbox.deliver()
    inbox.wait(QUIET_SECONDS)
    asked = len(inbox.pipeline.model.requests)
    inbox.drop("a.txt", LETTER)
    inbox.deliver()

    first, second = (inbox.folders.note(inbox.folders.done / name) for name in ("a.txt", "b.txt"))
    third = inbox.folders.note(inbox.folders.done / "a (2).txt")
    assert len(inbox.pipeline.model.requests) == asked
    assert intake(second)["outcome"] == "duplicate"
    assert intake(second)["same_as_intake"] == intake(first)["id"]
    (job,) = jobs(intake(third))
    assert job["reused_from"] == jobs(intake(first))[0]["id"]


def test_a_side_car_overrides_for_its_file(inbox: WatchedInbox) -> None:
    """Its entries go before the profile's, and it moves along with its file."""
    inbox.drop("letters/a.txt.chordwise.toml", 'types = ["summary"]\nmodel = "extractive"')
    inbox.drop("letters/a.txt", LETTER)

    inbox.deliver()

    beside = inbox.folders.done / "letters" / "a.txt.chordwise.toml"
    asked = "SELECT model || ' ' || (options ->> 'instructions') FROM jobs"
    assert inbox.pipeline.value(asked) == "extractive who writes to whom"
    assert "extractive" in beside.read_text("utf-8")
    assert not (inbox.folders.inbox / "letters" / "a.txt.chordwise.toml").exists()


@pytest.mark.parametrize(
    ("side_car", "words"),
    [
        ("types = [", "not valid TOML"),
        ("colour = 'red'", "colour"),
        ("folder = '/etc'", "names a folder"),
        ("model = 'nobody'", "no model named"),
        ("types = ['extraction']\nschema = '/etc/passwd'", "outside"),
        ("types = ['extraction']\nschema = '../x.json'", "outside"),
        ("types = ['extraction']\nschema = 'none.json'", "cannot be read"),
        ("labels = ['one']", "two labels"),
    ],
)
def test_a_broken_side_car_sends_its_file_to_failed(
    inbox: WatchedInbox, side_car: str, words: str
) -> None:
    """The note says what is wrong; nothing is asked."""
    inbox.drop("a.txt.chordwise.toml", side_car)
    inbox.drop("a.txt", LETTER)

    inbox.deliver()

    note = inbox.folders.note(inbox.folders.failed / "a.txt")
    assert words in str(note["message"])
    assert (note["outcome"], note["intakes"]) == ("failed", [])
    assert (inbox.folders.failed / "a.txt.chordwise.toml").read_text("utf-8") == side_car
    assert inbox.pipeline.value("SELECT count(*) FROM jobs") == 0


def test_what_cannot_be_read_goes_to_failed_with_its_outcome(inbox: WatchedInbox) -> None:
    """The note names the file as it was dropped, not where it lay meanwhile."""
    dropped = inbox.drop("empty.txt", "")

    inbox.deliver()

    note = intake(inbox.folders.note(inbox.folders.failed / "empty.txt"))
    assert note["outcome"] == "empty"
    assert str(note["message"]).startswith(f"{dropped} ")
    assert note["hint"]


def test_a_job_that_failed_sends_its_file_to_failed(inbox: WatchedInbox) -> None:
    """With code, hint and attempts."""
    inbox.drop("a.txt", LETTER)
    inbox.take()
    inbox.pipeline.execute(
        "UPDATE jobs SET status = 'failed', error_code = 'refused', hint = 'Ask otherwise.'"
    )

    inbox.wait(1)

    (job,) = jobs(intake(inbox.folders.note(inbox.folders.failed / "a.txt")))
    assert (job["status"], job["code"], job["hint"]) == ("failed", "refused", "Ask otherwise.")
    assert job["attempts"] == 0


def test_nothing_is_ever_overwritten(inbox: WatchedInbox) -> None:
    """Neither a file of that name, nor one that is called as the note would be."""
    inbox.folders.done.mkdir()
    (inbox.folders.done / "a.txt").write_text("mine", "utf-8")
    (inbox.folders.done / "a (2).txt.json").write_text("mine, too", "utf-8")
    inbox.drop("a.txt", LETTER)

    inbox.deliver()

    assert (inbox.folders.done / "a.txt").read_text("utf-8") == "mine"
    assert (inbox.folders.done / "a (2).txt.json").read_text("utf-8") == "mine, too"
    assert (inbox.folders.done / "a (3).txt").read_text("utf-8") == LETTER


def test_what_is_no_plain_file_is_refused_once_and_left(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links, loops, pipes and sockets are reported once, never followed, and the rest goes on."""
    folder = inbox.folders.inbox
    (folder / "link.txt").symlink_to("/etc/passwd")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe.txt")
    (inbox.folders.root / "outside.txt").hardlink_to(inbox.drop("twin.txt", OTHER))
    with socket.socket(socket.AF_UNIX) as server, structlog.testing.capture_logs() as logs:
        monkeypatch.chdir(folder)  # the path of a socket has to be short
        server.bind("socket.txt")
        inbox.drop("good.txt", LETTER)
        for _ in range(4):
            inbox.deliver()
            inbox.watch.disturb([folder / "link.txt"])

    refused = [Path(str(line["file"])).name for line in logs if line["event"] == "inbox.refused"]
    left = ["link.txt", "loop", "pipe.txt", "socket.txt", "twin.txt"]
    assert sorted(refused) == left
    assert sorted(each.name for each in folder.iterdir()) == left
    assert (inbox.folders.done / "good.txt").exists()


def test_a_mended_file_is_taken(inbox: WatchedInbox) -> None:
    """A second name that goes away makes the file acceptable, without a restart."""
    path = inbox.drop("a.txt", LETTER)
    other = inbox.folders.root / "other.txt"
    other.hardlink_to(path)
    inbox.deliver()
    assert path.exists()

    other.unlink()
    inbox.watch.disturb([path])
    inbox.deliver()

    assert (inbox.folders.done / "a.txt").exists()


@pytest.mark.parametrize(
    "name",
    [
        b"new\nline.txt", b"-rf.txt", b"=cmd().txt", "\u202etxt.exe.txt".encode(), b"\xff\xfe.txt",
        b"back\\..\\slash.txt", b"x" * 251 + b".txt", b"tab\t\x07.txt",
    ],
)  # fmt: skip
def test_odd_names_stay_as_they_are(inbox: WatchedInbox, name: bytes) -> None:
    """Whatever a file is called, it arrives under the very same bytes, and nowhere else."""
    path = inbox.folders.inbox / os.fsdecode(name)
    path.write_text(LETTER, "utf-8")
    inbox.watch.disturb([path])

    inbox.deliver()

    arrived = [os.fsencode(each.name) for each in inbox.folders.done.iterdir()]
    assert len(arrived) == 2
    assert name in arrived
    shown = inbox.pipeline.value("SELECT name FROM inbox_files")
    assert str(shown).isprintable()


def test_twins_of_normal_forms_are_two_files(inbox: WatchedInbox) -> None:
    """Composed and decomposed names look alike and are kept apart."""
    names = [unicodedata.normalize(form, "Köln.txt") for form in ("NFC", "NFD")]
    for number, name in enumerate(names):
        inbox.drop(name, f"{number}. {LETTER}")

    inbox.deliver()

    assert {each.name for each in inbox.folders.done.glob("*.txt")} == set(names)


def test_a_place_that_cannot_be_written_to_is_told_once(inbox: WatchedInbox) -> None:
    """The file is safe in the store meanwhile, and delivered once the place is mended."""
    inbox.folders.done.write_text("no folder", "utf-8")
    inbox.drop("a.txt", LETTER)
    with structlog.testing.capture_logs() as logs:
        inbox.deliver()
        for _ in range(5):
            inbox.wait(100)

    assert [line["event"] for line in logs].count("inbox.put_off") == 1
    assert inbox.folders.hashes().total() == 1
    inbox.folders.done.unlink()
    inbox.wait(100)
    assert (inbox.folders.done / "a.txt").read_text("utf-8") == LETTER


def test_a_profile_that_cannot_work_leaves_its_files_where_they_are(
    tmp_path: Path, settings: Settings
) -> None:
    """Its files wait until the schema is mended; others go on."""
    schema = tmp_path / "schema.json"
    schema.write_text("{", "utf-8")
    profiles = {"broken": ProfileSettings.model_validate({"schema": schema})}
    inbox = watched(tmp_path, settings, profiles)
    waiting = inbox.drop("broken/a.txt", LETTER)
    inbox.drop("b.txt", OTHER)
    inbox.deliver()
    assert waiting.exists()
    assert (inbox.folders.done / "b.txt").exists()

    schema.write_text('{"type": "object", "properties": {"who": {"type": "string"}}}', "utf-8")
    inbox.wait(100)
    inbox.wait(100)

    assert not waiting.exists()
    inbox.close()


def test_a_file_that_the_database_forgot_is_put_back(inbox: WatchedInbox) -> None:
    """After a restored backup the store's files go back into the inbox, and are taken anew."""
    inbox.drop("letters/a.txt.chordwise.toml", "instructions = 'x'")
    inbox.drop("letters/a.txt", LETTER)
    inbox.take()
    inbox.drop("letters/a.txt", OTHER)
    inbox.pipeline.execute("DELETE FROM inbox_intakes")
    inbox.pipeline.execute("DELETE FROM inbox_files")

    inbox.begin_anew()
    inbox.watch.tick()

    texts = {each.name: each.read_text("utf-8") for each in inbox.folders.inbox.rglob("*.txt")}
    assert texts == {"a.txt": OTHER, "a (2).txt": LETTER}
    assert list(inbox.store.ids()) == []


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("is_forgotten", [False, True])
def test_a_kill_on_the_way_back_doubles_nothing(
    inbox: WatchedInbox, *, across: bool, is_forgotten: bool
) -> None:
    """A file that lies under both names, in the inbox and in the store, is one file again."""
    path = inbox.drop("a.txt", LETTER)
    inbox.take()
    (file_id,) = inbox.store.ids()
    stored = inbox.store.path_of(file_id, "a.txt")
    (shutil.copy2 if across else os.link)(stored, path)
    inbox.pipeline.execute("DELETE FROM inbox_intakes")
    if is_forgotten:
        inbox.pipeline.execute("DELETE FROM inbox_files")
    else:
        inbox.pipeline.execute("UPDATE inbox_files SET status = 'taking'")

    inbox.begin_anew()
    inbox.deliver()

    assert (inbox.folders.done / "a.txt").read_text("utf-8") == LETTER
    assert list(inbox.folders.inbox.iterdir()) == list(inbox.store.ids()) == []
    assert set(inbox.folders.done.iterdir()) == {
        inbox.folders.done / "a.txt",
        inbox.folders.done / "a.txt.json",
    }


def test_what_was_taken_in_is_not_taken_in_again(inbox: WatchedInbox) -> None:
    """After a kill between the last document and the row of the file nothing is doubled."""
    inbox.drop("a.txt", LETTER)
    inbox.take()
    inbox.pipeline.execute("UPDATE inbox_files SET status = 'taken'")

    inbox.begin_anew()
    inbox.deliver()

    assert inbox.pipeline.value("SELECT count(*) FROM intakes") == 1
    assert (inbox.folders.done / "a.txt").exists()


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
    """As whoever begins to listen does: for what came before the first event."""
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
    """It may come after its file, which then has to be quiet anew."""
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


def test_across_file_systems_a_file_is_copied_and_then_removed(
    inbox: WatchedInbox, tmp_path: Path
) -> None:
    """Where a rename is refused, the content, the time and the hash arrive all the same."""
    path = tmp_path / "inbox" / "a.txt"
    inbox.drop("a.txt.chordwise.toml", "instructions = 'x'")
    inbox.drop("a.txt", LETTER)
    prints = scanning.fingerprints(path)
    assert prints is not None
    taking = Taking(inbox.pipeline.context, inbox.store, rename=another_file_system)

    file = taking.take(path, Place(folder=path.parent), "", prints)

    assert file is not None
    stored = inbox.store.path_of(file.id, "a.txt")
    assert stored.read_text("utf-8") == LETTER
    assert stored.stat().st_mtime_ns == prints[0].modified_ns
    assert inbox.store.side_car_of(file.id, "a.txt").exists()
    assert list(path.parent.iterdir()) == []


def test_a_full_disk_leaves_the_file_where_it_is(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F09: a copy that breaks off is undone; the file is taken once there is room."""
    path = inbox.drop("a.txt", LETTER)
    monkeypatch.setattr(inbox.watch._taking, "_rename", another_file_system)
    with monkeypatch.context() as full:
        full.setattr(moving, "copy", no_space)
        inbox.take()
        assert path.read_text("utf-8") == LETTER
        assert list(inbox.store.ids()) == []
        assert inbox.pipeline.value("SELECT count(*) FROM inbox_files") == 0

    inbox.wait(100)
    inbox.wait(100)
    inbox.work()
    inbox.wait(1)

    assert (inbox.folders.done / "a.txt").exists()


def test_what_cannot_be_recovered_yet_holds_up_nobody(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F09: a copy that a kill cut off waits for room on the disk; it is told once, others go on."""
    path = inbox.drop("a.txt", LETTER)
    file = inbox.watch._taking._row(path, Place(folder=path.parent), "")
    with inbox.pipeline.context.sessions.begin() as session:
        session.add(file)
        session.flush()
        inbox.store.begin(file.id, path)
        path.rename(moving.mark_beside(path, file.id.hex))
    inbox.begin_anew()
    with monkeypatch.context() as full, structlog.testing.capture_logs() as logs:
        full.setattr(moving, "copy", no_space)
        inbox.drop("b.txt", OTHER)
        inbox.deliver()
        for _ in range(5):
            inbox.wait(100)
        assert (inbox.folders.done / "b.txt").exists()

    inbox.wait(100)
    inbox.deliver()

    assert [line["event"] for line in logs].count("inbox.put_off") == 1
    assert (inbox.folders.done / "a.txt").read_text("utf-8") == LETTER
    assert list(inbox.folders.inbox.iterdir()) == list(inbox.store.ids()) == []


def test_what_can_neither_be_taken_nor_put_back_is_put_back_later(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F09: the inbox fails in the middle of a copy; once it works again nobody has to restart."""
    path = inbox.drop("a.txt", LETTER)
    monkeypatch.setattr(inbox.watch._taking, "_rename", another_file_system)
    with monkeypatch.context() as away:
        away.setattr(moving, "copy", no_space)
        away.setattr(moving, "place", out_of_reach)
        inbox.take()
        inbox.drop("b.txt", OTHER)
        for _ in range(5):
            inbox.wait(100)
        assert not path.exists()

    for _ in range(3):
        inbox.wait(100)
        inbox.deliver()

    assert (inbox.folders.done / "a.txt").read_text("utf-8") == LETTER
    assert (inbox.folders.done / "b.txt").read_text("utf-8") == OTHER
    assert list(inbox.folders.inbox.iterdir()) == list(inbox.store.ids()) == []


def test_a_store_that_cannot_be_written_to_leaves_no_rows(inbox: WatchedInbox) -> None:
    """F08: the file stays where it is, and no row says that it is being taken."""
    path = inbox.drop("a.txt", LETTER)
    inbox.watch.tick()
    aside = inbox.store.folder.rename(inbox.folders.root / "aside")
    inbox.store.folder.write_text("no folder", "utf-8")
    for _ in range(3):
        inbox.wait(100)
    assert path.exists()
    assert inbox.pipeline.value("SELECT count(*) FROM inbox_files") == 0

    inbox.store.folder.unlink()
    aside.rename(inbox.store.folder)
    inbox.wait(100)
    inbox.work()
    inbox.wait(1)

    assert (inbox.folders.done / "a.txt").exists()


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

    told = [(inbox.watch.tick(), len(list(inbox.folders.inbox.iterdir()))) for _ in range(2)]

    assert told == [(True, 1), (False, 0)]


def test_one_watch_at_a_time(inbox: WatchedInbox) -> None:
    """A second process of the same home waits for its turn."""
    other = type(inbox.store)(inbox.folders.home)

    assert not other.acquire()

    inbox.store.release()
    assert other.acquire()
    other.release()


def test_ten_thousand_files_are_looked_at_in_bounded_memory(tmp_path: Path) -> None:
    """F10: only so many are returned, and they are the oldest."""
    for number in range(10_000):
        path = tmp_path / f"{number % 100}" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, ns=(0, (number * 7919) % 10_000))
    refused: list[Refused] = []

    found = scanning.oldest(tmp_path, 500, refused.append)

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


def another_file_system(source: Path, _target: Path) -> None:
    """Refuse a rename as the kernel does between file systems."""
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))


def out_of_reach(_source: Path, target: Path, _token: str) -> None:
    """Find the file system gone."""
    raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))


def no_space(_source: Path, target: Path) -> None:
    """Write half a file, and find the disk full."""
    target.write_text("half", "utf-8")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))


def intake(note: object) -> dict[str, object]:
    """Return the only intake of a note."""
    assert isinstance(note, dict)
    (found,) = note["intakes"]
    return dict(found)


def jobs(of_intake: dict[str, object]) -> list[dict[str, object]]:
    """Return the jobs of an intake of a note."""
    found = of_intake["jobs"]
    assert isinstance(found, list)
    return found
