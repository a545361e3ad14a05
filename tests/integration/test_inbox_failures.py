"""Tests that kills, other watches, changes and full disks lose or duplicate no file of an inbox."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from chordwise.errors import LeaseLostError, ServiceUnavailableError
from chordwise.pipeline.inbox import folders, scan
from chordwise.pipeline.intake import document_batches
from chordwise.pipeline.intake.found_files import FileSource, Found
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.recovery.recover import recover
from chordwise.readers.discovery import FoundFile
from chordwise.readers.reader import Columns
from chordwise.settings import Profile, Settings
from chordwise.storage import inbox_files
from chordwise.storage.inbox_files import InboxFile
from chordwise.storage.record import new_id
from tests.fakes.inbox_watch import (
    LETTER,
    OTHER,
    QUIET_SECONDS,
    STABILITY_SECONDS,
    WatchedInbox,
    intake,
    watched,
)
from tests.fakes.processes import KilledError


def test_a_folder_that_is_not_writable_is_reported_once(inbox: WatchedInbox) -> None:
    inbox.folders.done.write_text("no folder", "utf-8")
    inbox.drop("a.txt", LETTER)
    with structlog.testing.capture_logs() as logs:
        inbox.deliver()
        for _ in range(5):
            inbox.wait(100)

    assert [line["event"] for line in logs].count("inbox.postponed") == 1
    assert inbox.folders.hashes().total() == 1
    inbox.folders.done.unlink()
    inbox.wait(100)
    assert (inbox.folders.done / "a.txt").read_text("utf-8") == LETTER


def test_files_of_an_invalid_profile_stay_in_the_inbox(tmp_path: Path, settings: Settings) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text("{", "utf-8")
    profiles = {"broken": Profile.model_validate({"schema": schema})}
    inbox = watched(tmp_path, settings, profiles)
    waiting = inbox.drop("broken/a.txt", LETTER)
    inbox.drop("b.txt", OTHER)
    inbox.deliver()
    assert waiting in inbox.unclaimed
    assert (inbox.folders.done / "b.txt").exists()

    schema.write_text('{"type": "object", "properties": {"who": {"type": "string"}}}', "utf-8")
    inbox.wait(100)
    inbox.wait(100)

    assert waiting not in inbox.unclaimed
    inbox.close()


@pytest.mark.parametrize("is_changed", [False, True])
def test_a_kill_in_the_middle_of_a_file_leaves_its_run_open(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, *, is_changed: bool
) -> None:
    """If the file changes in the meantime, its other rows are refused, and all are read anew."""
    profiles = {"rows": Profile(text_column="text")}
    inbox = watched(tmp_path, settings, profiles)
    rows = "".join(["text\n", *(f"Row {n}. {LETTER}\n" for n in range(6))])
    path = inbox.drop("rows/a.csv", rows)
    take_in, taken = Submission.take_in, list[object]()

    def killed(self: Submission, *batch: object) -> object:
        if taken:
            raise KilledError
        taken.append(batch)
        return take_in(self, *batch)  # type: ignore[arg-type]  # passed on as they came

    with monkeypatch.context() as killing:
        killing.setattr(document_batches, "MAX_DOCUMENTS", 4)
        killing.setattr(Submission, "take_in", killed)
        with pytest.raises(KilledError):
            inbox.take()
    inbox.pipeline.execute("UPDATE runs SET lease_until = now()")
    recover(inbox.pipeline.context)
    inbox.work()
    account = (
        "SELECT accepted, not_taken, intakes_balance IS TRUE, intake_status, status"
        " FROM run_accounts"
    )
    assert inbox.pipeline.rows(account) == [(4, 1, False, "interrupted", "open")]

    if is_changed:
        path.write_text(rows.replace("Row 0", "Line 0"), "utf-8")
    inbox.begin_anew()
    inbox.deliver()
    inbox.wait(QUIET_SECONDS)
    inbox.work()
    inbox.wait(1)

    reasons = "SELECT coalesce(reason, ''), count(*) FROM intakes GROUP BY 1 ORDER BY 1"
    if is_changed:
        assert inbox.pipeline.rows(reasons) == [("", 4 + 6), ("changed", 1)]
        assert inbox.pipeline.value("SELECT bool_and(intakes_balance) FROM run_accounts")
        inbox.close()
        return
    assert inbox.pipeline.rows(reasons) == [("", 6)]
    assert inbox.pipeline.rows(account) == [(6, 0, True, "finished", "finished")]
    positions = "SELECT array_agg(position ORDER BY position) FROM inbox_intakes"
    assert inbox.pipeline.value(positions) == list(range(6))
    assert (inbox.folders.done / "rows" / "a.csv").exists()
    inbox.close()


def test_only_the_file_that_ends_three_processes_is_set_aside(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file has its last attempt alone; the others of its batch are read afterwards."""
    for name in ("a.txt", "b.txt", "c.txt"):
        inbox.drop(name, f"{name}. {LETTER}")
    read = FileSource.read

    def deadly(
        self: FileSource, file: FoundFile, columns: Columns, *more: object
    ) -> Iterator[Found]:
        if file.source.endswith("a.txt"):
            raise KilledError
        return read(self, file, columns, *more)  # type: ignore[arg-type]  # passed on as they came

    attempts = "SELECT array_agg(attempts ORDER BY name) FROM inbox_files"
    monkeypatch.setattr(FileSource, "read", deadly)
    for expected in ([1, 1, 1], [2, 2, 2], [3, 2, 2]):
        with pytest.raises(KilledError):
            inbox.take()
        assert inbox.pipeline.value(attempts) == expected
        inbox.begin_anew()
    for _ in range(4):
        inbox.deliver()
    inbox.wait(QUIET_SECONDS)

    note = inbox.folders.note(inbox.folders.failed / "a.txt")
    assert note["outcome"] == "failed"
    unread = intake(note)
    assert (unread["outcome"], unread["reason"]) == ("unreadable", "quarantined")
    assert "more memory" in str(unread["hint"])
    assert sorted(path.name for path in inbox.folders.done.glob("*.txt")) == ["b.txt", "c.txt"]
    states = "SELECT array_agg(DISTINCT status), bool_and(intakes_balance) FROM run_accounts"
    assert inbox.pipeline.rows(states) == [(["finished"], True)]


def test_a_file_that_was_taken_in_completely_is_not_read_again(inbox: WatchedInbox) -> None:
    """Even if processes were lost before they recorded it."""
    inbox.drop("a.txt", LETTER)
    inbox.take()
    inbox.pipeline.execute("UPDATE inbox_files SET status = 'claimed', attempts = 3")

    inbox.begin_anew()
    inbox.deliver()

    assert inbox.pipeline.value("SELECT count(*) FROM intakes") == 1
    assert (inbox.folders.done / "a.txt").exists()


def test_only_lost_processes_count_as_attempts(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage of the database counts once, and an orderly end takes that back."""
    attempts = "SELECT attempts FROM inbox_files"
    with monkeypatch.context() as away:
        away.setattr(Submission, "take_in", out_of_service)
        inbox.drop("a.txt", LETTER)
        for _ in range(3):
            with contextlib.suppress(ServiceUnavailableError):
                inbox.take()
    assert inbox.pipeline.value(attempts) == 1

    inbox.watch.close()

    assert inbox.pipeline.value(attempts) == 0
    inbox.begin()
    inbox.deliver()
    assert (inbox.folders.done / "a.txt").exists()


@pytest.fixture
def other(inbox: WatchedInbox) -> Iterator[WatchedInbox]:
    """Return a second watch of the same inbox, as of a scheduler on another host."""
    second_watch = WatchedInbox(folders=inbox.folders, pipeline=inbox.pipeline)
    yield second_watch
    second_watch.close()


def test_two_watches_claim_each_file_once(inbox: WatchedInbox, other: WatchedInbox) -> None:
    for number in range(60):  # more than a watch claims at once
        inbox.drop(f"{number:02}.txt", f"{number}. {LETTER}")
    inbox.watch.tick()
    other.watch.tick()
    for watch in (other, inbox):
        watch.wait(STABILITY_SECONDS)
    inbox.work()
    for watch in (inbox, other):
        watch.wait(1)

    assert inbox.pipeline.value("SELECT count(*) FROM inbox_files WHERE status = 'done'") == 60
    assert inbox.pipeline.value("SELECT count(*) FROM intakes") == 60
    assert len(list(inbox.folders.done.iterdir())) == 120
    assert inbox.left == []


def test_another_watch_continues_after_the_lease(inbox: WatchedInbox, other: WatchedInbox) -> None:
    inbox.drop("a.txt", LETTER)
    inbox.take()
    inbox.work()
    with inbox.pipeline.context.database.write() as session:
        inbox_files.claim_answered(session, inbox.watch._holder, inbox.watch._claimable(set()), 1)
    other.deliver()
    assert not (inbox.folders.done / "a.txt").exists()

    inbox.watch.stop_reading()
    inbox.pipeline.execute("UPDATE inbox_files SET lease_until = NULL")
    other.deliver()

    assert (inbox.folders.done / "a.txt").exists()


def test_a_watch_that_lost_its_lease_delivers_nothing(
    inbox: WatchedInbox, other: WatchedInbox
) -> None:
    """It is late with files that the other watch has moved meanwhile."""
    for name in ("a.txt", "b.txt"):
        inbox.drop(name, f"{name}. {LETTER}")
    inbox.take()
    inbox.work()
    with inbox.pipeline.context.database.write() as session:
        of = inbox.watch._claimable(set())
        late = inbox_files.claim_answered(session, inbox.watch._holder, of, 2)
    inbox.pipeline.execute("UPDATE inbox_files SET lease_until = NULL")
    other.wait(1)
    before = sorted(inbox.folders.done.iterdir())

    errors = inbox.watch._deliverer.deliver(late)

    assert [type(error) for error in errors] == [LeaseLostError, LeaseLostError]
    assert len(before) == 4
    assert sorted(inbox.folders.done.iterdir()) == before


def test_a_watch_that_lost_its_lease_stores_nothing(
    inbox: WatchedInbox, other: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other watch claims the file while the first one is about to put it into a run."""
    enlist = Submission.enlist

    def stolen(self: Submission, *arguments: object) -> object:
        inbox.pipeline.execute("UPDATE inbox_files SET lease_until = NULL")
        with inbox.pipeline.context.database.write() as session:
            assert inbox_files.claim_unread(
                session, other.watch._holder, other.watch._claimable(set()), [], 9
            )
        return enlist(self, *arguments)  # type: ignore[arg-type]  # passed on as they came

    with monkeypatch.context() as stealing:
        stealing.setattr(Submission, "enlist", stolen)
        inbox.drop("a.txt", LETTER)
        inbox.take()
    assert inbox.pipeline.value("SELECT count(*) FROM intakes") == 0

    other.deliver()

    assert inbox.pipeline.value("SELECT count(*) FROM intakes") == 1
    assert (inbox.folders.done / "a.txt").exists()


@pytest.mark.parametrize(
    ("content", "is_answered"), [(OTHER, False), (OTHER, True), (LETTER.swapcase(), False)]
)
def test_a_changed_file_is_a_new_document(
    inbox: WatchedInbox, content: str, *, is_answered: bool
) -> None:
    """The answers about the earlier content get its name, and the later file the next one.

    A change that leaves size and time is found by the hash.
    """
    path = inbox.drop("a.txt", LETTER)
    inbox.take()
    if is_answered:
        inbox.work()
    status = path.stat()
    path.write_text(content, "utf-8")
    if len(content) == len(LETTER):
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    inbox.work()
    inbox.wait(1)
    inbox.watch.record_changes([path])
    inbox.deliver()

    notes = [inbox.folders.note(inbox.folders.done / name) for name in ("a.txt", "a (2).txt")]
    assert [(note["outcome"], note["reason"]) for note in notes] == [
        ("done", "changed"),
        ("done", None),
    ]
    assert [path.name for path in inbox.folders.done.glob("*.txt")] == ["a (2).txt"]
    assert (inbox.folders.done / "a (2).txt").read_text("utf-8") == content
    assert inbox.pipeline.value("SELECT count(*) FROM intakes") == 2


def test_a_removed_file_is_accounted_for(inbox: WatchedInbox) -> None:
    """Before it is read there are no answers; afterwards they are delivered without the file."""
    read = inbox.drop("read.txt", LETTER)
    inbox.take()
    inbox.work()
    read.unlink()
    inbox.wait(1)
    unread = inbox.drop("unread.txt", OTHER)
    inbox.watch.tick()
    inbox.now += STABILITY_SECONDS
    with inbox.pipeline.context.database.write() as session:
        inbox_files.claim(session, inbox.watch._holder, [a_row(inbox, unread)])
    unread.unlink()
    inbox.deliver()

    done = inbox.folders.note(inbox.folders.done / "read.txt")
    failed = inbox.folders.note(inbox.folders.failed / "unread.txt")
    assert (done["outcome"], done["reason"]) == ("done", "vanished")
    assert (failed["outcome"], failed["reason"]) == ("failed", "vanished")
    assert intake(failed)["outcome"] == "unreadable"
    assert inbox.pipeline.value("SELECT bool_and(intakes_balance IS NOT FALSE) FROM run_accounts")


def test_files_wait_while_their_inbox_is_away(inbox: WatchedInbox, tmp_path: Path) -> None:
    """A folder that is missing, such as a share that is not mounted, is no removed file.

    A link instead of a folder moves no file elsewhere: its author may have fewer rights.
    """
    inbox.drop("a.txt", LETTER)
    linked = inbox.drop("letters/b.txt", OTHER)
    inbox.take()
    inbox.work()
    aside = inbox.folders.inbox.rename(inbox.folders.root / "aside")
    inbox.wait(1)
    assert not inbox.folders.done.exists()
    aside.rename(inbox.folders.inbox)
    linked.parent.rename(tmp_path / "elsewhere")
    linked.parent.symlink_to(tmp_path / "elsewhere")

    inbox.wait(100)

    assert (inbox.folders.done / "a.txt").exists()
    assert (tmp_path / "elsewhere" / "b.txt").exists()
    assert inbox.folders.note(inbox.folders.done / "letters" / "b.txt")["reason"] == "changed"


def test_a_file_is_copied_to_another_file_system(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F09: it waits under its name while there is no room; a copy has no rights of its author."""
    path = inbox.drop("a.txt", LETTER)
    path.chmod(0o6755)
    inbox.drop("a.txt.chordwise.toml", "instructions = 'x'")
    inbox.take()
    inbox.work()
    modified_ns = path.stat().st_mtime_ns
    monkeypatch.setattr(folders, "_name", other_file_system)
    with monkeypatch.context() as full:
        full.setattr(folders, "copy", no_space)
        inbox.wait(1)
        assert path.read_text("utf-8") == LETTER
        assert not (inbox.folders.done / "a.txt").exists()

    inbox.wait(100)

    moved = inbox.folders.done / "a.txt"
    assert (moved.read_text("utf-8"), moved.stat().st_mtime_ns) == (LETTER, modified_ns)
    assert stat.S_IMODE(moved.stat().st_mode) == 0o755
    assert moved.with_name("a.txt.chordwise.toml").exists()
    assert inbox.left == []


def a_row(inbox: WatchedInbox, path: Path) -> InboxFile:
    raw_name, byte_count, modified_ns = scan.version(
        path.parent, (path, scan.fingerprints(path) or ())
    )
    return InboxFile(
        id=new_id(),
        folder=str(inbox.folders.inbox),
        name=path.name,
        raw_name=raw_name,
        byte_count=byte_count,
        modified_ns=modified_ns,
        profile="",
    )


def other_file_system(source: Path, target: Path) -> None:
    """Rename a file only within its folder, as the kernel does for an inbox that is a share."""
    if source.parent != target.parent:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
    if target.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)


def no_space(_source: Path, target: Path) -> None:
    """Write half a file, and fail because the disk is full."""
    target.write_text("half", "utf-8")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))


def out_of_service(*_: object) -> None:
    raise ServiceUnavailableError("PostgreSQL is away.", "Wait.")
