"""Tests of `chordwise inbox`: waiting, submitted and finished files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from chordwise.errors import ExitCode
from chordwise.settings import Profile, Settings
from tests.fakes.commands import output_of, point_to
from tests.fakes.inbox_watch import LETTER, WatchedInbox, watched


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevent paths from being wrapped, however long the name of the test's folder is."""
    monkeypatch.setenv("COLUMNS", "250")


@pytest.fixture
def inbox(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WatchedInbox]:
    """Watch an inbox that is also in the command's settings."""
    config = tmp_path / "chordwise.toml"
    config.write_text('[inbox]\nfolders = ["inbox"]\n[profiles.bills]\n', "utf-8")
    point_to(settings, monkeypatch)
    monkeypatch.setenv("CHORDWISE_CONFIG", str(config))
    watched_inbox = watched(tmp_path, settings, {"bills": Profile()})
    yield watched_inbox
    watched_inbox.close()


def test_the_files_of_each_folder_are_counted(inbox: WatchedInbox) -> None:
    """The text output shows the folder, the counts, and a table of the latest files."""
    inbox.drop("done.txt", LETTER)
    inbox.deliver()
    shown = output_of("inbox").out
    inbox.drop("failed.txt", "")
    inbox.deliver()
    inbox.drop("bills/at-work.txt", f"{LETTER} Again.")
    inbox.take()
    inbox.drop("waiting.txt", LETTER)
    (inbox.folders.inbox / "link.txt").symlink_to("/etc/passwd")

    (state,) = json.loads(output_of("inbox", "--json").out)["inboxes"]

    counts = {name: state[name] for name in ("waiting", "in_analysis", "done", "failed")}
    assert set(counts.values()) == {1}
    assert state["profiles"] == ["bills"]
    assert [Path(entry["path"]).name for entry in state["refused"]] == ["link.txt"]
    statuses = {file["name"]: file["status"] for file in state["recent"]}
    assert statuses == {
        "done.txt": "done",
        "failed.txt": "failed",
        "bills/at-work.txt": "submitted",
    }
    assert str(inbox.folders.inbox) in shown
    assert "0 files waiting · 0 being analyzed" in shown
    assert "1 done · 0 failed" in shown
    assert "done.txt" in shown
    assert "has the reason" not in shown


def test_a_failure_is_shown_with_its_reason_and_the_place_of_its_note(inbox: WatchedInbox) -> None:
    """The first failure is below the table; the notes have all of them."""
    inbox.drop("empty.txt", "")
    inbox.deliver()

    (state,) = json.loads(output_of("inbox", "--json").out)["inboxes"]
    shown = output_of("inbox").in_one_line

    (file,) = state["recent"]
    assert file["reason"] == "empty"
    assert file["message"].startswith(f"{inbox.folders.inbox}/empty.txt ")
    assert f"✗ empty.txt: {file['message']} → {file['hint']}" in shown
    assert f"{inbox.folders.inbox.with_name('failed')}: NAME.json" in shown
    shutil.rmtree(inbox.folders.inbox)
    (state,) = json.loads(output_of("inbox", "--json").out)["inboxes"]
    assert [entry["reason"] for entry in state["refused"]] == [
        "does not exist; the scheduler creates it when it starts"
    ]


def test_a_profile_that_holds_files_back_reports_the_reason(inbox: WatchedInbox) -> None:
    """A profile without waiting files holds nothing back."""
    with (inbox.folders.root / "chordwise.toml").open("a", encoding="utf-8") as config:
        config.write('schema = "gone.json"\n')
    inbox.drop("c.txt", LETTER)
    (before,) = json.loads(output_of("inbox", "--json").out)["inboxes"]
    inbox.drop("bills/a.txt", LETTER)
    inbox.drop("bills/2026/b.txt", LETTER)

    (state,) = json.loads(output_of("inbox", "--json").out)["inboxes"]
    said = output_of("inbox").in_one_line

    (held_back,) = state["held_back"]
    assert (before["waiting"], before["held_back"]) == (1, [])
    assert (state["waiting"], held_back["profile"], held_back["files"]) == (3, "bills", 2)
    assert "gone.json cannot be read: the file does not exist" in held_back["message"]
    assert held_back["hint"] == "Put the file there, or name another."
    assert f"2 files of profile bills held back: {held_back['message']}" in said
    assert f"→ {held_back['hint']}" in said


def test_a_side_car_without_a_file_is_reported(inbox: WatchedInbox) -> None:
    """The hint gives the correct name; hidden side-cars are not reported, others not all named."""
    for name in ("bills/.a.txt", "bills/a.txt", "bills/b", "C.TXT", "folder"):
        inbox.drop(f"{name}.chordwise.toml", "critique = true")
    upper = inbox.drop("C.TXT", LETTER).with_name("C.TXT.chordwise.toml")
    upper.rename(upper.with_name("C.TXT.CHORDWISE.TOML"))
    inbox.drop("bills/a.txt", LETTER)
    inbox.drop("bills/b.txt", LETTER)
    (inbox.folders.inbox / "folder").mkdir()

    (state,) = json.loads(output_of("inbox", "--json").out)["inboxes"]
    said = output_of("inbox").in_one_line

    assert (state["waiting"], state["orphaned_side_car_count"]) == (3, 3)
    names = ["C.TXT.CHORDWISE.TOML", "bills/b.chordwise.toml", "folder.chordwise.toml"]
    told = [str(inbox.folders.inbox / name) for name in names]
    assert state["orphaned_side_cars"] == told
    assert all(f"{path} is a side-car without a file." in said for path in told)
    assert said.count("→ The side-car of NAME.EXT is named NAME.EXT.chordwise.toml") == 1
    for number in range(20):
        inbox.drop(f"{number:02}.txt.chordwise.toml", "critique = true")
    many = output_of("inbox").in_one_line
    assert many.count("is a side-car without a file") == 20
    assert "… and 3 side-cars more without a file" in many


def test_without_a_folder_the_hint_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is started, and the exit code is that of a usage error."""
    monkeypatch.chdir(tmp_path)

    assert "[inbox] folders" in output_of("inbox", code=ExitCode.USAGE).err
