"""Tests that many files of an inbox are taken in together without affecting each other."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chordwise.errors import RunCancelledError
from chordwise.pipeline.inbox import folders, scan
from chordwise.pipeline.inbox.reading_threads import SLOW_SECONDS
from chordwise.pipeline.intake import document_batches
from chordwise.pipeline.intake.found_files import FileSource, Found
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.jobs import run_control
from chordwise.readers.discovery import FoundFile
from chordwise.readers.reader import Columns, ReadingInterruptedError, Transcriber
from tests.fakes.counting import counting
from tests.fakes.inbox_watch import LETTER, STABILITY_SECONDS, WatchedInbox, intake
from tests.fakes.processes import wait_until

SUBMITTED = "SELECT array_agg(name ORDER BY name) FROM inbox_files WHERE status = 'submitted'"

LINKED = """
SELECT count(*) FROM inbox_files AS f
JOIN inbox_intakes AS l ON l.inbox_file_id = f.id
JOIN intakes AS i ON i.id = l.intake_id AND i.source LIKE '%/' || f.name
WHERE f.status = 'submitted' AND f.attempts = 1 AND f.run_id = i.run_id
"""


def drop(inbox: WatchedInbox, *names: str) -> None:
    for name in names:
        inbox.drop(name, f"{name}. {LETTER}")


def test_forty_files_are_taken_in_and_delivered_with_few_transactions(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_batches, "FLUSH_SECONDS", 60)
    drop(inbox, *(f"{number:02}.txt" for number in range(40)))

    with counting(inbox.pipeline) as counts:
        inbox.take()
    assert counts.transactions <= 20
    assert counts.statements <= 60
    assert inbox.pipeline.value(LINKED) == 40
    assert inbox.pipeline.value("SELECT count(*) FROM runs") == 1
    inbox.work()
    with counting(inbox.pipeline) as counts:
        inbox.wait(1)

    assert counts.transactions <= 20
    assert counts.statements <= 40
    for number in range(40):
        note = inbox.folders.note(inbox.folders.done / f"{number:02}.txt")
        assert (note["outcome"], note["file"]) == ("done", f"{number:02}.txt")
        assert str(intake(note)["source"]).endswith(f"/{number:02}.txt")
    assert inbox.pipeline.value("SELECT bool_and(status = 'done') FROM inbox_files") is True
    assert len(list(inbox.folders.done.glob("*.txt"))) == 40
    assert inbox.left == []


def test_a_file_that_cannot_be_claimed_does_not_affect_others(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(inbox, "a.txt", "b.txt", "c.txt")
    is_being_written = scan.is_being_written

    def failing(path: Path) -> bool:
        if path.name == "b.txt":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return is_being_written(path)

    with monkeypatch.context() as context:
        context.setattr(scan, "is_being_written", failing)
        inbox.take()

    assert [path.name for path in inbox.unclaimed] == ["b.txt"]
    assert inbox.pipeline.value(SUBMITTED) == ["a.txt", "c.txt"]
    assert inbox.pipeline.value("SELECT count(*) FROM inbox_files") == 2
    inbox.wait(100)
    assert inbox.pipeline.value(SUBMITTED) == ["a.txt", "b.txt", "c.txt"]


def take_with_slow(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch, names: str, *slow: str
) -> threading.Event:
    """Take files named by letters, the `slow` ones of which are read after the returned event."""
    may_go_on = threading.Event()
    read = FileSource.read

    def slowly(
        self: FileSource,
        file: FoundFile,
        columns: Columns,
        name: str = "",
        transcriber: Transcriber | None = None,
    ) -> Iterator[Found]:
        while file.source.endswith(slow) and not may_go_on.wait(0.01):
            if self._reader._interruption.is_set():
                self._reader._interruption.clear()
                raise ReadingInterruptedError
        yield from read(self, file, columns, name, transcriber)

    monkeypatch.setattr(FileSource, "read", slowly)
    monkeypatch.setattr(inbox.watch, "_reading_turn_seconds", 0.1)
    for letter in names:
        drop(inbox, f"{letter}.txt")
        os.utime(inbox.folders.inbox / f"{letter}.txt", (ord(letter), ord(letter)))
    inbox.take()
    return may_go_on


def test_files_behind_a_slow_one_are_read_without_waiting(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files before it are submitted at once, and files behind two slow ones in another task.

    The second slow one waits for the first. If that takes longer than a file may take, the watch
    says so.
    """
    may_go_on = take_with_slow(inbox, monkeypatch, "abcd", "b.txt", "c.txt")
    wait_until(submitted(inbox, "a.txt"), 30, "the file before it")

    inbox.wait(SLOW_SECONDS)
    inbox.wait(SLOW_SECONDS)
    wait_until(submitted(inbox, "a.txt", "d.txt"), 30, "the file behind them")
    inbox.wait(inbox.pipeline.context.settings.readers.file_timeout_seconds)
    assert not inbox.watch.is_overdue()
    inbox.wait(301)
    assert inbox.watch.is_overdue()
    may_go_on.set()
    wait_until(submitted(inbox, "a.txt", "b.txt", "c.txt", "d.txt"), 30, "the slow files")
    inbox.wait(1)
    assert not inbox.watch.is_overdue()

    assert inbox.pipeline.value("SELECT array_agg(attempts) FROM inbox_files") == [1, 1, 1, 1]
    assert inbox.pipeline.value("SELECT count(*) FROM intakes") == 4


def test_a_slow_file_of_a_cancelled_run_is_refused_without_those_behind_it(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = take_with_slow(inbox, monkeypatch, "abc", "b.txt")
    wait_until(submitted(inbox, "a.txt"), 30, "the file before it")
    inbox.wait(SLOW_SECONDS)
    wait_until(submitted(inbox, "a.txt", "c.txt"), 30, "the file behind it")

    run_id = uuid.UUID(str(inbox.pipeline.value("SELECT id FROM runs")))
    run_control.cancel(inbox.pipeline.context.database, run_id)
    may_go_on.set()
    reason = "SELECT reason FROM inbox_files WHERE name = 'b.txt'"

    def is_refused() -> bool:
        inbox.wait(0.05)
        return inbox.pipeline.value(reason) == RunCancelledError.code

    wait_until(is_refused, 30, "the refusal of the slow file")
    assert inbox.pipeline.value("SELECT count(*) FROM runs") == 1


def submitted(inbox: WatchedInbox, *names: str) -> Callable[[], bool]:
    def look() -> bool:
        inbox.wait(0.05)
        return inbox.pipeline.value(SUBMITTED) == list(names)

    return look


def test_files_of_a_run_cancelled_during_intake_have_the_reason(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(*_: object) -> None:
        raise RunCancelledError("The run is cancelled.", "Retry it.")

    with monkeypatch.context() as context:
        context.setattr(Submission, "take_in", cancelled)
        drop(inbox, "a.txt", "b.txt")
        inbox.take()
    drop(inbox, "c.txt")
    inbox.watch.tick()
    inbox.wait(STABILITY_SECONDS)

    stored = inbox.pipeline.rows("SELECT name, coalesce(reason, '') FROM inbox_files ORDER BY name")
    code = RunCancelledError("").code
    assert stored == [("a.txt", code), ("b.txt", code), ("c.txt", "")]


def test_two_files_of_the_same_name_are_delivered_together(inbox: WatchedInbox) -> None:
    """The name of a folder that may be a link is not repeated below done."""
    inbox.folders.done.mkdir()
    (inbox.folders.done / "linked").symlink_to(inbox.folders.root)
    for name, content in (("a.txt", "The first."), ("linked/a.txt", "The second.")):
        inbox.drop(name, f"{content} {LETTER}")
    inbox.take()
    inbox.work()
    inbox.wait(1)

    for name, content in (("a.txt", "The first."), ("a (2).txt", "The second.")):
        delivered = inbox.folders.done / name
        assert delivered.read_text("utf-8") == f"{content} {LETTER}"
        sha256 = hashlib.sha256(delivered.read_bytes()).hexdigest()
        assert inbox.folders.note(delivered)["sha256"] == sha256


def test_a_file_that_cannot_be_delivered_does_not_affect_others(
    inbox: WatchedInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(inbox, "a.txt", "b.txt", "c.txt")
    inbox.take()
    inbox.work()
    place = folders.move

    def failing(source: Path, target: Path, token: str) -> None:
        if target.name == "b.txt" and target.parent == inbox.folders.done:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))
        place(source, target, token)

    with monkeypatch.context() as context:
        context.setattr(folders, "move", failing)
        inbox.wait(1)
    assert sorted(path.name for path in inbox.folders.done.glob("*.txt")) == ["a.txt", "c.txt"]

    inbox.wait(100)

    assert inbox.pipeline.value("SELECT count(*) FROM inbox_files WHERE status = 'done'") == 3
    assert len(list(inbox.folders.done.glob("*.txt.json"))) == 3
