"""Files of an inbox are taken, submitted and delivered, whatever they are called."""

from __future__ import annotations

import os
import socket
import unicodedata
from pathlib import Path

import pytest
import structlog

from tests.fakes.inbox_watch import LETTER, OTHER, QUIET_SECONDS, WatchedInbox, intake, jobs


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
    assert inbox.pipeline.value(counts) == ["inbox-20261125-0213 2", "inbox-20261125-0213-2 1"]
    inbox.wait(QUIET_SECONDS)
    balance = "SELECT bool_and(intakes_balance AND jobs_balance) FROM run_accounts"
    assert inbox.pipeline.value(balance) is True


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


BROKEN = {
    "types = [": "not valid TOML",
    "colour = 'red'": "colour",
    "folder = '/etc'": "names a folder",
    "model = 'nobody'": "no model named",
    "types = ['extraction']\nschema = '/etc/passwd'": "no TOML or JSON file below",
    "types = ['extraction']\nschema = '../x.json'": "no TOML or JSON file below",
    "types = ['extraction']\nschema = 'none.json'": "cannot be read",
    "labels = ['one']": "two labels",
}


def test_a_broken_side_car_sends_its_file_to_failed(inbox: WatchedInbox) -> None:
    """The note says what is wrong; nothing is asked."""
    for number, side_car in enumerate(BROKEN):
        inbox.drop(f"{number}.txt.chordwise.toml", side_car)
        inbox.drop(f"{number}.txt", LETTER)

    inbox.deliver()

    for number, (side_car, words) in enumerate(BROKEN.items()):
        file = inbox.folders.failed / f"{number}.txt"
        note = inbox.folders.note(file)
        assert words in str(note["message"])
        assert (note["outcome"], note["intakes"]) == ("failed", [])
        assert file.with_name(f"{file.name}.chordwise.toml").read_text("utf-8") == side_car
    assert inbox.pipeline.value("SELECT count(*) FROM jobs") == 0


def test_the_row_says_what_went_wrong_first(inbox: WatchedInbox) -> None:
    """Of intake or job; the note says the same further down, and a file that is done nothing."""
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


def test_of_several_troubles_the_row_has_the_first(inbox: WatchedInbox) -> None:
    """In the order of the things in a file; what has no reason is called by its state."""
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
    assert sorted(each.name for each in inbox.left) == left
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


ODD_NAMES = (
    b"new\nline.txt", b"-rf.txt", b"=cmd().txt", "\u202etxt.exe.txt".encode(), b"\xff\xfe.txt",
    b"back\\..\\slash.txt", b"x" * 251 + b".txt", b"tab\t\x07.txt",
)  # fmt: skip


def test_odd_names_stay_as_they_are(inbox: WatchedInbox) -> None:
    """Whatever a file is called, it arrives under the very same bytes, and nowhere else."""
    for number, name in enumerate(ODD_NAMES):
        path = inbox.folders.inbox / os.fsdecode(name)
        path.write_text(f"{number}. {LETTER}", "utf-8")
        inbox.watch.disturb([path])

    inbox.deliver()

    arrived = {os.fsencode(each.name) for each in inbox.folders.done.iterdir()}
    assert len(arrived) == 2 * len(ODD_NAMES)
    assert arrived > {*ODD_NAMES}
    for (name,) in inbox.pipeline.rows("SELECT name FROM inbox_files"):
        assert str(name).isprintable()


def test_twins_of_normal_forms_are_two_files(inbox: WatchedInbox) -> None:
    """Composed and decomposed names look alike and are kept apart."""
    names = [unicodedata.normalize(form, "Köln.txt") for form in ("NFC", "NFD")]
    for number, name in enumerate(names):
        inbox.drop(name, f"{number}. {LETTER}")

    inbox.deliver()

    assert {each.name for each in inbox.folders.done.glob("*.txt")} == set(names)
