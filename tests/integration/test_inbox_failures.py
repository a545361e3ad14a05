"""Tests that kills, full disks and unavailable folders lose or duplicate no file of an inbox."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

import pytest
import structlog

from chordwise.domain.inbox import Fingerprint
from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.inbox import folders, scan
from chordwise.pipeline.inbox.file_taker import FileTaker, ScannedFile
from chordwise.pipeline.inbox.folders import Inbox, take
from chordwise.pipeline.intake import document_batches
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.recovery.recover import recover
from chordwise.settings import Profile, Settings
from chordwise.storage.inbox_files import InboxFile
from tests.fakes.inbox_watch import LETTER, OTHER, QUIET_SECONDS, WatchedInbox, intake, watched
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
    assert waiting.exists()
    assert (inbox.folders.done / "b.txt").exists()

    schema.write_text('{"type": "object", "properties": {"who": {"type": "string"}}}', "utf-8")
    inbox.wait(100)
    inbox.wait(100)

    assert not waiting.exists()
    inbox.close()


def test_a_file_missing_in_the_database_is_moved_back(inbox: WatchedInbox) -> None:
    """After a restored backup, files of the store return to the inbox and are taken again."""
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
def test_a_kill_while_moving_back_duplicates_no_file(
    inbox: WatchedInbox, *, across: bool, is_forgotten: bool
) -> None:
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
    assert inbox.left == list(inbox.store.ids()) == []
    assert set(inbox.folders.done.iterdir()) == {
        inbox.folders.done / "a.txt",
        inbox.folders.done / "a.txt.json",
    }


def test_a_document_that_was_taken_in_is_not_taken_in_again(inbox: WatchedInbox) -> None:
    inbox.drop("a.txt", LETTER)
    inbox.take()
    inbox.pipeline.execute("UPDATE inbox_files SET status = 'taken'")

    inbox.begin_anew()
    inbox.deliver()

    assert inbox.pipeline.value("SELECT count(*) FROM intakes") == 1
    assert (inbox.folders.done / "a.txt").exists()


def test_a_kill_in_the_middle_of_a_file_leaves_its_run_open(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles = {"rows": Profile(text_column="text")}
    inbox = watched(tmp_path, settings, profiles)
    inbox.drop("rows/a.csv", "".join(["text\n", *(f"Row {n}. {LETTER}\n" for n in range(6))]))
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
    inbox.pipeline.execute("UPDATE runs SET intake_until = now()")
    recover(inbox.pipeline.context)
    inbox.work()
    account = (
        "SELECT accepted, not_taken, intakes_balance IS TRUE, intake_status, status"
        " FROM run_accounts"
    )
    assert inbox.pipeline.rows(account) == [(4, 1, False, "interrupted", "open")]

    inbox.begin_anew()
    inbox.deliver()
    inbox.wait(QUIET_SECONDS)
    inbox.work()
    inbox.wait(1)

    assert inbox.pipeline.rows(account) == [(6, 0, True, "finished", "finished")]
    assert inbox.pipeline.value("SELECT count(DISTINCT source) FROM intakes") == 6
    assert (inbox.folders.done / "rows" / "a.csv").exists()
    inbox.close()


def test_a_file_is_copied_across_file_systems(inbox: WatchedInbox, tmp_path: Path) -> None:
    path = tmp_path / "inbox" / "a.txt"
    inbox.drop("a.txt.chordwise.toml", "instructions = 'x'")
    inbox.drop("a.txt", LETTER)
    prints = scan.fingerprints(path)
    assert prints is not None
    taking = FileTaker(inbox.pipeline.context, inbox.store, rename=another_file_system)

    (file,) = taking.take([a_scanned_file(path, prints)])

    assert isinstance(file, InboxFile)
    stored = inbox.store.path_of(file.id, "a.txt")
    assert stored.read_text("utf-8") == LETTER
    assert stored.stat().st_mtime_ns == prints[0].modified_ns
    assert inbox.store.side_car_of(file.id, "a.txt").exists()
    assert list(path.parent.iterdir()) == []


def test_a_full_disk_leaves_the_file_where_it_is(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F09: an interrupted copy is undone; the file is taken once there is room."""
    path = inbox.drop("a.txt", LETTER)
    monkeypatch.setattr(inbox.watch._taker, "_rename", another_file_system)
    with monkeypatch.context() as full:
        full.setattr(folders, "copy", no_space)
        inbox.take()
        assert path.read_text("utf-8") == LETTER
        assert list(inbox.store.ids()) == []
        assert inbox.pipeline.value("SELECT count(*) FROM inbox_files") == 0

    inbox.wait(100)
    inbox.wait(100)
    inbox.work()
    inbox.wait(1)

    assert (inbox.folders.done / "a.txt").exists()


def test_a_file_that_cannot_be_recovered_yet_does_not_block_others(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F09: a copy interrupted by a kill waits for room on the disk and is reported once."""
    path = inbox.drop("a.txt", LETTER)
    file = inbox.watch._taker._row(a_scanned_file(path, ()))
    with inbox.pipeline.context.database.write() as session:
        session.add(file)
        session.flush()
        inbox.store.create(file.id, path)
        path.rename(folders.hidden_path(path, file.id.hex))
    inbox.begin_anew()
    with monkeypatch.context() as full, structlog.testing.capture_logs() as logs:
        full.setattr(folders, "copy", no_space)
        inbox.drop("b.txt", OTHER)
        inbox.deliver()
        for _ in range(5):
            inbox.wait(100)
        assert (inbox.folders.done / "b.txt").exists()

    inbox.wait(100)
    inbox.deliver()

    assert [line["event"] for line in logs].count("inbox.postponed") == 1
    assert (inbox.folders.done / "a.txt").read_text("utf-8") == LETTER
    assert inbox.left == list(inbox.store.ids()) == []


def test_a_file_that_can_neither_be_taken_nor_moved_back_is_kept(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F09: the inbox fails during a copy; once it works again no restart is needed."""
    path = inbox.drop("a.txt", LETTER)
    monkeypatch.setattr(inbox.watch._taker, "_rename", another_file_system)
    with monkeypatch.context() as away:
        away.setattr(folders, "copy", no_space)
        away.setattr(folders, "move", out_of_reach)
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
    assert inbox.left == list(inbox.store.ids()) == []


def test_a_store_that_is_not_writable_leaves_no_rows(inbox: WatchedInbox) -> None:
    """F08: the file stays in place, and no row claims that it is being taken."""
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


def test_a_file_that_ended_several_processes_is_set_aside(inbox: WatchedInbox) -> None:
    inbox.drop("a.txt", LETTER)
    inbox.take()
    inbox.pipeline.execute("UPDATE inbox_files SET status = 'taken', attempts = 3")

    inbox.begin_anew()
    inbox.deliver()

    note = inbox.folders.note(inbox.folders.failed / "a.txt")
    assert (note["outcome"], note["reason"]) == ("failed", "quarantined")
    assert "more memory" in str(note["hint"])
    assert intake(note)["outcome"] == "accepted"


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


def test_a_copy_gets_no_rights_of_the_user_who_runs_the_scheduler(tmp_path: Path) -> None:
    """A program with the mode 4755 would otherwise run as that user once it is delivered."""
    source, target = tmp_path / "program", tmp_path / "taken"
    source.write_text("machine code", "utf-8")
    source.chmod(0o7755)
    modified_ns = source.stat().st_mtime_ns

    take(source, target, "token", another_file_system)

    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert (target.read_text("utf-8"), target.stat().st_mtime_ns) == ("machine code", modified_ns)


def a_scanned_file(path: Path, prints: tuple[Fingerprint, ...]) -> ScannedFile:
    return ScannedFile(path=path, inbox=Inbox(folder=path.parent), profile="", prints=prints)


def out_of_service(*_: object) -> None:
    raise ServiceUnavailableError("PostgreSQL is away.", "Wait.")


def another_file_system(source: Path, _target: Path) -> None:
    """Refuse a rename as the kernel does between file systems."""
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))


def out_of_reach(_source: Path, target: Path, _token: str) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))


def no_space(_source: Path, target: Path) -> None:
    """Write half a file, and fail because the disk is full."""
    target.write_text("half", "utf-8")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
