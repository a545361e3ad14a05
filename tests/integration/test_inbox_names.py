"""Whatever a file is called, and whatever it is: taken as it is, or refused and left."""

from __future__ import annotations

import os
import socket
import unicodedata
from pathlib import Path

import pytest
import structlog

from tests.fakes.inbox_watch import (
    LETTER,
    OTHER,
    WatchedInbox,
)


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
