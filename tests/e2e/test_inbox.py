"""Files that are dropped into an inbox become results, with real processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from chordwise.domain import json_values
from tests.e2e.conftest import Stage
from tests.fakes.dropping import Folders, sha256
from tests.fakes.processes import kill, wait_until

STABILITY_SECONDS = 1.0
SETTINGS = f"""
[inbox]
folders = ["inbox"]
stability_seconds = {STABILITY_SECONDS}
quiet_seconds = 2

[profiles.letters]
instructions = "who writes to whom"
"""
SLOW_PAGE = b"<html>" + b"<p hidden>x &amp; y</p>" * 300_000
SLOW_PAGES = 400
TEXT = "The council of Lindau voted in 1856 about the harbour. It was rebuilt in the same year. "


@pytest.fixture
def folders(stage: Stage) -> Folders:
    """Add an inbox to the settings of the stage."""
    with (stage.folder / "chordwise.toml").open("a", encoding="utf-8") as config:
        config.write(SETTINGS)
    found = Folders(root=stage.folder, home=stage.folder / "home")
    (found.inbox / "letters").mkdir(parents=True)
    return found


def start(stage: Stage, folders: Folders) -> None:
    """Start worker and scheduler, and wait until they are at work: a first file is done."""
    stage.processes.start("worker")
    stage.processes.start("scheduler")
    (folders.inbox / "first.txt").write_text("The first file. It wakes everybody up.", "utf-8")
    wait_until((folders.done / "first.txt.json").exists, 60, "the first file is done")


def has_taken(stage: Stage, least: int) -> bool:
    """Tell whether so many files were taken out of the inbox."""
    return stage.count("SELECT count(*) FROM inbox_files") >= least


def delivered(path: Path) -> Callable[[], bool]:
    """Return the condition that a file lies there with its note."""
    return lambda: path.exists() and path.with_name(f"{path.name}.json").exists()


def test_a_dropped_file_is_a_row_within_the_delay_and_two_seconds(
    stage: Stage, folders: Folders
) -> None:
    """Drop → row in `results`: the stability delay, and no more than two seconds for the rest."""
    start(stage, folders)
    stage.wait_for("SELECT count(*) = 1 FROM results")

    dropped_at = time.monotonic()
    (folders.inbox / "letters" / "a.txt").write_text(TEXT, "utf-8")
    stage.wait_for("SELECT count(*) = 2 FROM results")
    took = time.monotonic() - dropped_at

    target = folders.done / "letters" / "a.txt"
    wait_until(delivered(target), 20, "the file is delivered")
    assert took >= STABILITY_SECONDS
    assert took <= STABILITY_SECONDS + 2
    assert folders.note(target)["profile"] == "letters"
    assert str(folders.note(target)["run"]).startswith("inbox-letters-")
    assert "Traceback" not in stage.processes.logs()


def test_an_inbox_that_is_made_at_the_start_is_watched_at_once(
    stage: Stage, folders: Folders
) -> None:
    """What is dropped before anybody tells of changes is found long before the next full look."""
    (folders.inbox / "letters").rmdir()
    folders.inbox.rmdir()
    stage.processes.start("worker")
    stage.processes.start("scheduler")
    wait_until(folders.inbox.is_dir, 60, "the inbox is made")

    (folders.inbox / "early.txt").write_text(TEXT, "utf-8")

    wait_until(delivered(folders.done / "early.txt"), 25, "the early file is done")


def test_a_slow_writer_is_waited_for(stage: Stage, folders: Folders) -> None:
    """A pause longer than the delay in the middle of a file that is held open changes nothing."""
    start(stage, folders)
    slow = folders.inbox / "slow.txt"

    with slow.open("w", encoding="utf-8") as file:
        for part in range(3):
            file.write(f"{part}. {TEXT}")
            file.flush()
            time.sleep(2 * STABILITY_SECONDS)  # noqa: TID251 - the pause is what is tested
            assert slow.exists()
    whole = sha256(slow)

    wait_until(delivered(folders.done / "slow.txt"), 30, "the slow file is done")
    assert (
        sha256(folders.done / "slow.txt")
        == whole
        == folders.note(folders.done / "slow.txt")["sha256"]
    )


def test_what_comes_twice_is_analyzed_once(stage: Stage, folders: Folders) -> None:
    """Same content, two names: one analysis; same name, new content: another, nothing is lost."""
    start(stage, folders)
    (folders.inbox / "one.txt").write_text(TEXT, "utf-8")
    (folders.inbox / "two.txt").write_text(TEXT, "utf-8")
    wait_until(delivered(folders.done / "one.txt"), 30, "one")
    wait_until(delivered(folders.done / "two.txt"), 30, "two")
    calls = stage.count("SELECT count(*) FROM model_calls WHERE NOT cache_hit")

    staged = folders.root / "elsewhere.txt"
    staged.write_text(f"{TEXT} And once more in 1900.", "utf-8")
    staged.rename(folders.inbox / "one.txt")
    (folders.inbox / "three.txt").write_text(TEXT, "utf-8")
    os.utime(folders.inbox / "three.txt")
    wait_until(delivered(folders.done / "one (2).txt"), 30, "one again")
    wait_until(delivered(folders.done / "three.txt"), 30, "three")

    assert calls == 2
    assert stage.count("SELECT count(*) FROM model_calls WHERE NOT cache_hit") == 3
    assert set(folders.hashes().values()) == {1, 3}
    stage.wait_for("SELECT bool_and(intakes_balance AND jobs_balance) FROM run_accounts")


def test_a_killed_scheduler_loses_nothing(stage: Stage, folders: Folders) -> None:
    """SIGKILL while files are taken, over and over: each file lies in one place, unchanged."""
    stage.processes.start("worker")
    for number in range(60):
        (folders.inbox / f"{number}.txt").write_text(f"Number {number}. {TEXT}", "utf-8")
    before = folders.hashes()

    for taken in (1, 20, 40):
        scheduler = stage.processes.start("scheduler")
        wait_until(partial(has_taken, stage, taken), 60, "some are taken")
        kill(scheduler)
        assert folders.hashes() == before
    stage.processes.start("scheduler")

    wait_until(lambda: len(list(folders.done.glob("*.json"))) == 60, 120, "all are delivered")
    assert folders.hashes() == before
    assert stage.count("SELECT count(*) FROM results") == 60
    assert stage.count("SELECT count(*) FROM intakes") == 60
    stage.wait_for("SELECT bool_and(intakes_balance AND jobs_balance) FROM run_accounts")


def test_a_file_that_is_half_written_at_the_start_is_waited_for(
    stage: Stage, folders: Folders
) -> None:
    """The look at the start takes nothing that still grows."""
    growing = folders.inbox / "growing.txt"
    growing.write_text(TEXT, "utf-8")
    stage.processes.start("worker")
    stage.processes.start("scheduler")
    stage.wait_for("SELECT true")

    for _ in range(30):
        with growing.open("a", encoding="utf-8") as file:
            file.write(TEXT)
        time.sleep(STABILITY_SECONDS / 5)  # noqa: TID251 - the pace is what is tested
    whole = sha256(growing)

    wait_until(delivered(folders.done / "growing.txt"), 60, "it is done")
    assert sha256(folders.done / "growing.txt") == whole


def test_a_file_that_is_renamed_is_taken_once_under_its_last_name(
    stage: Stage, folders: Folders
) -> None:
    """Out of a temporary name, from elsewhere, and from one folder of the inbox to another."""
    start(stage, folders)
    uploading = folders.inbox / "upload.txt.part"
    uploading.write_text(f"Uploaded. {TEXT}", "utf-8")
    moved = folders.inbox / "moved.txt"
    moved.write_text(f"Moved. {TEXT}", "utf-8")
    moved = moved.rename(folders.inbox / "letters" / "moved.txt")
    staged = folders.root / "staged.txt"
    staged.write_text(f"Staged. {TEXT}", "utf-8")
    staged.rename(folders.inbox / "staged.txt")
    wait_until(delivered(folders.done / "letters" / "moved.txt"), 30, "the moved file is done")
    wait_until(delivered(folders.done / "staged.txt"), 30, "the staged file is done")

    assert uploading.exists()
    uploading.rename(folders.inbox / "upload.txt")
    wait_until(delivered(folders.done / "upload.txt"), 30, "the upload is done")

    assert folders.note(folders.done / "letters" / "moved.txt")["profile"] == "letters"
    assert set(folders.hashes().values()) == {1}
    assert stage.count("SELECT count(*) FROM inbox_files") == 4
    assert stage.count("SELECT count(*) FROM results") == 4


def test_a_file_that_is_touched_has_to_be_quiet_anew(stage: Stage, folders: Folders) -> None:
    """It is taken once, no earlier than the delay after the last touch, and with that time."""
    start(stage, folders)
    touched = folders.inbox / "touched.txt"
    touched.write_text(TEXT, "utf-8")

    for _ in range(15):
        time.sleep(STABILITY_SECONDS / 5)  # noqa: TID251 - the pace is what is tested
        with contextlib.suppress(FileNotFoundError):  # the test itself was held up for the delay
            os.utime(touched)

    target = folders.done / "touched.txt"
    wait_until(delivered(target), 30, "the touched file is done")
    taken_at = stage.value(
        "SELECT extract(epoch FROM created_at)::float8 FROM inbox_files WHERE name = 'touched.txt'"
    )
    assert isinstance(taken_at, float)
    assert taken_at - target.stat().st_mtime >= STABILITY_SECONDS
    assert stage.count("SELECT count(*) FROM intakes") == 2


def slow_archive(folder: Path) -> Path:
    """Write a small archive of pages that together take minutes to parse and show no text."""
    slow = folder / "staged.zip"
    with zipfile.ZipFile(slow, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for number in range(SLOW_PAGES):
            packed.writestr(f"{number}.html", SLOW_PAGE)
    assert slow.stat().st_size < 30_000_000
    return slow


def has_begun(stage: Stage, attempt: int) -> bool:
    """Tell whether a process has begun to read the deadly file so many times."""
    query = "SELECT coalesce(max(attempts), 0) FROM inbox_files WHERE name = 'deadly.zip'"
    return stage.count(query) == attempt


def has_results(stage: Stage, count: int) -> bool:
    return stage.count("SELECT count(*) FROM results") == count


def inbox_process(scheduler: int) -> psutil.Process:
    """Return the process of a scheduler that takes files in, once it is there."""

    def found() -> list[psutil.Process]:
        children = psutil.Process(scheduler).children()
        return [each for each in children if each.cmdline()[-2:] == ["scheduler", "inbox"]]

    wait_until(lambda: bool(found()), 60, "the inbox is watched")
    return found()[0]


@pytest.mark.nightly
def test_a_slow_file_holds_up_no_other(stage: Stage, folders: Folders) -> None:
    """Ordinary files are done while it is read; at its limit it is set aside, and accounted for."""
    with (stage.folder / "chordwise.toml").open("a", encoding="utf-8") as config:
        config.write("[readers]\nfile_timeout_seconds = 40\n")
    slow = slow_archive(stage.folder)
    also_slow = Path(shutil.copy(slow, stage.folder / "also.zip"))
    start(stage, folders)
    slow.rename(folders.inbox / "slow.zip")
    also_slow.rename(folders.inbox / "letters" / "also slow.zip")
    stage.wait_for("SELECT bool_or(attempts = 1) FROM inbox_files WHERE name = 'slow.zip'")

    for number in range(10):
        for folder in (folders.inbox, folders.inbox / "letters"):
            (folder / f"{number}.txt").write_text(f"Number {number}. {TEXT}", "utf-8")
    wait_until(lambda: len(list(folders.done.rglob("[0-9].txt.json"))) == 20, 60, "ordinary ones")

    assert not folders.failed.exists()
    wait_until(delivered(folders.failed / "slow.zip"), 120, "the slow file is set aside")
    note = folders.note(folders.failed / "slow.zip")
    found = json_values.objects(note["intakes"])
    assert [each["outcome"] for each in found[:-1]] == ["empty"] * (len(found) - 1)
    assert (found[-1]["outcome"], found[-1]["reason"]) == ("unreadable", "file_timeout")
    assert 1 < len(found) <= SLOW_PAGES
    wait_until(
        delivered(folders.failed / "letters" / "also slow.zip"), 120, "the other one is set aside"
    )
    stage.wait_for("SELECT bool_and(intakes_balance AND jobs_balance) FROM run_accounts")
    assert "Traceback" not in stage.processes.logs()


def test_a_file_that_ends_its_reader_is_set_aside(stage: Stage, folders: Folders) -> None:
    """After three lost processes it lies in failed/; the scheduler has dispatched all the while."""
    stage.processes.start("worker")
    scheduler = stage.processes.start("scheduler")
    slow_archive(stage.folder).rename(folders.inbox / "deadly.zip")
    letter = stage.folder / "letter.txt"

    for attempt in (1, 2, 3):
        wait_until(partial(has_begun, stage, attempt), 60, f"attempt {attempt}")
        inbox_process(scheduler.pid).kill()
        letter.write_text(f"Letter {attempt}. {TEXT}", "utf-8")
        stage.submit(str(letter))
        wait_until(partial(has_results, stage, attempt), 60, f"result {attempt}")

    wait_until(delivered(folders.failed / "deadly.zip"), 60, "it is set aside")
    note = folders.note(folders.failed / "deadly.zip")
    assert note["reason"] == "quarantined"
    assert "more memory" in str(note["hint"])
    (folders.inbox / "next.txt").write_text(TEXT, "utf-8")
    wait_until(delivered(folders.done / "next.txt"), 60, "the next file is done")
    assert scheduler.poll() is None
    assert stage.count("SELECT count FROM incidents WHERE kind = 'process_lost'") == 3
