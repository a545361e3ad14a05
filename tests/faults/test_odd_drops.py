"""F06 and F07: unexpected names, and things that are no plain files."""

from __future__ import annotations

import csv
import io
import os
import socket
import stat
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from chordwise.domain import json_values
from tests.faults.cluster import Cluster
from tests.faults.drops import WAITING_SECONDS, Drops
from tests.faults.experiment import Experiment
from tests.faults.hostile_files import traversing_archive
from tests.faults.members import Member

_KOELN = "Köln.txt"
NAMES = (
    b"new\nline.txt",
    b"-rf.txt",
    b"--help",
    b"=cmd().txt",
    b"@SUM(1+1)*cmd.txt",
    b"\xff\xfe.txt",
    b"caf\xe9/\xff folder/latin.txt",
    b"back\\..\\..\\slash.txt",
    b"x" * 251 + b".txt",
    b"tab\t\x07bell\x1b[31m.txt",
    b"$(reboot);`id`|&.txt",
    b" spaces .txt",
    b"%s%n{0}.txt",
    "\u202etxt.exe.txt".encode(),
    unicodedata.normalize("NFC", _KOELN).encode(),
    unicodedata.normalize("NFD", _KOELN).encode(),
)
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
_NULL_DEVICE = os.makedev(1, 3)


def unprintable(text: str) -> set[str]:
    """Return the characters that a terminal would obey, or not show."""
    return {each for each in text if each != "\n" and unicodedata.category(each) in ("Cc", "Cf")}


def exported(cluster: Cluster, table: str, column: str) -> list[str]:
    """Return a column as it stands in a CSV export."""
    done = cluster.run("export", table, "--columns", column)
    assert done.returncode == 0, done.stderr
    return [row[0] for row in list(csv.reader(io.StringIO(done.stdout)))[1:]]


def relative_bytes(folder: Path) -> set[bytes]:
    """Return the paths below a folder, as the very bytes."""
    return {os.fsencode(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}


@pytest.mark.thorough
def test_unexpected_names(cluster: Cluster, experiment: Experiment) -> None:
    """F06: every file arrives under the very same bytes, and every name is shown harmlessly."""
    experiment.begin("F06", f"{len(NAMES)} names, such as invalid UTF-8, =cmd(), newlines, twins")
    drops = cluster.open_inbox()
    cluster.start_watching()
    around = set(drops.folders.root.parent.iterdir())

    for number, name in enumerate(NAMES):
        drops.drop(name, cluster.documents.text(number))
    drops.drop("archive.zip", traversing_archive(cluster.documents.text(len(NAMES))))
    drops.wait_until_delivered(len(NAMES) + 1, 60, cluster.story)
    experiment.fault_is_over()
    drops.drop("plain.txt", cluster.documents.text(len(NAMES) + 1))
    drops.wait_until_delivered(len(NAMES) + 2, 20, cluster.story)
    experiment.finish(bound_seconds=WAITING_SECONDS + experiment.undisturbed_seconds)
    shown = cluster.run("inbox", "--json").stdout + cluster.run("inbox").stdout
    cells = exported(cluster, "inbox_files", "name") + exported(cluster, "intakes", "source")
    assert {*NAMES, b"archive.zip"} <= relative_bytes(drops.folders.done)
    assert set(drops.folders.root.parent.iterdir()) == around
    assert unprintable(shown + cluster.logs() + "".join(cells)) == set()
    assert [cell for cell in cells if cell.startswith(_FORMULAS)] == []
    members = [json_values.objects(note["intakes"]) for note in drops.notes("archive.zip")]
    assert [each["outcome"] for each in members[0]] == ["accepted"] * 4


def plant(drops: Drops, twin: str) -> set[str]:
    """Put things into the inbox that are no plain files of their own; return their names."""
    inbox = drops.folders.inbox
    (inbox / "link.txt").symlink_to("/etc/passwd")
    (inbox / "dangling.txt").symlink_to(inbox / "nowhere.txt")
    (inbox / "loop").symlink_to(inbox, target_is_directory=True)
    os.mkfifo(inbox / "pipe.txt")
    outside = drops.folders.root / "outside.txt"
    outside.write_text(twin, "utf-8")
    drops.expect(outside)
    (inbox / "twin.txt").hardlink_to(outside)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.txt")
    Path("socket.txt").rename(inbox / "socket.txt")
    names = {"link.txt", "dangling.txt", "loop", "pipe.txt", "twin.txt", "socket.txt"}
    if os.geteuid() == 0:
        os.mknod(inbox / "device.txt", stat.S_IFCHR | 0o600, _NULL_DEVICE)
        names.add("device.txt")
    return names


def refusals(scheduler: Member) -> Counter[str]:
    """Return how often each thing was reported as refused."""
    lines = [line for line in scheduler.text().splitlines() if '"inbox.refused"' in line]
    return Counter(Path(line.split('"file": "')[1].split('"')[0]).name for line in lines)


@pytest.mark.thorough
def test_what_is_no_plain_file(
    cluster: Cluster, experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F07: links, loops, pipes, sockets and devices are reported once, and left where they are."""
    experiment.begin("F07", "links, loops, a second name, a pipe, a socket, a device")
    monkeypatch.chdir(tmp_path)  # the path of a socket has to be short
    drops = cluster.open_inbox()
    scheduler = cluster.start_watching()

    planted = plant(drops, cluster.documents.text(99))
    for number in range(4):  # each makes the watch look again
        drops.drop(f"honest-{number}.txt", cluster.documents.text(number))
        drops.wait_until_delivered(number + 1, 60, cluster.story)
    told = refusals(scheduler)
    left = {each.name for each in drops.folders.inbox.iterdir()}
    shown = cluster.run("inbox").stdout
    (drops.folders.root / "outside.txt").unlink()
    drops.drop("honest-4.txt", cluster.documents.text(4))
    experiment.fault_is_over()

    drops.wait_until_delivered(6, 60, cluster.story)
    experiment.finish(
        bound_seconds=WAITING_SECONDS + experiment.undisturbed_seconds,
        notes="each reported once; the second name taken once the first had gone",
    )
    assert told == dict.fromkeys(planted, 1)
    assert left == planted
    assert all(name in shown for name in planted)
    assert drops.outcomes()["twin.txt"] == "done"
    assert cluster.count("SELECT count(*) FROM documents WHERE text LIKE '%root:%'") == 0
