"""Files that are dropped into an inbox become results, with real processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Stage
from tests.fakes.dropping import Folders
from tests.fakes.processes import wait_until

STABILITY_SECONDS = 1.0
SETTINGS = f"""
[inbox]
folders = ["inbox"]
stability_seconds = {STABILITY_SECONDS}
quiet_seconds = 2

[profiles.letters]
instructions = "who writes to whom"
"""
TEXT = "The council of Lindau voted in 1856 about the harbour. It was rebuilt in the same year. "


@pytest.fixture
def folders(stage: Stage) -> Folders:
    """Add an inbox to the settings of the stage."""
    with (stage.folder / "chordwise.toml").open("a", encoding="utf-8") as config:
        config.write(SETTINGS)
    return Folders(root=stage.folder, home=stage.folder / "home")


def start(stage: Stage, folders: Folders) -> None:
    """Start worker and scheduler, and wait until they are at work: a first file is done.

    It is dropped before anybody tells of changes, into an inbox that the scheduler makes at its
    start, and is found long before the next full look.
    """
    stage.processes.start("worker")
    stage.processes.start("scheduler")
    wait_until(folders.inbox.is_dir, 60, "the inbox is made")
    (folders.inbox / "first.txt").write_text("The first file. It wakes everybody up.", "utf-8")
    wait_until(delivered(folders.done / "first.txt"), 25, "the first file is done")
    (folders.inbox / "letters").mkdir(exist_ok=True)


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


@pytest.mark.nightly
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
