"""F04: files of nothing, of white space, of a gigabyte, and of one endless line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.drops import WAITING_SECONDS
from tests.faults.experiment import Experiment
from tests.faults.members import Member

pytestmark = pytest.mark.thorough

MEGABYTE = 1_048_576
READER_MEGABYTES = 1_024
LONG_LINE_CHARACTERS = 40_000
_USUAL_MEGABYTES = 400
_EXPECTED = {
    "empty.txt": "empty",
    "blank.txt": "empty",
    "gigabyte.txt": "too_large",
    "line-500.txt": "too_large",
    "line-200.txt": "too_many_characters",
    "line.txt": "done",
    "plain.txt": "done",
}


@pytest.fixture
def large(cluster: Cluster) -> Iterator[Path]:
    """Return a folder for large files; wherever they go in the experiment, they are removed."""
    folder = cluster.folder / "large"
    folder.mkdir()
    yield folder
    for path in cluster.folder.rglob("*.txt"):
        if path.stat().st_size > MEGABYTE:
            path.unlink()


def write_line(path: Path, megabytes: int) -> Path:
    """Write one line of words without an end of a sentence."""
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(b"words of " * (MEGABYTE // 9) + b" " * (MEGABYTE % 9))
    return path


def write_gigabyte(path: Path) -> Path:
    """Write a text that is a gigabyte long, most of it a hole in the file."""
    with path.open("wb") as file:
        file.write(b"A text that never ends. ")
        file.truncate(1_024 * MEGABYTE)
    return path


def peak_megabytes(member: Member) -> int:
    """Return the most memory that a member was seen to hold, with its children."""
    return member.peak_bytes // MEGABYTE


def test_nothing_and_far_too_much(cluster: Cluster, large: Path, experiment: Experiment) -> None:
    """F04: each gets a clear code; what is too large is not read; a long line is split hard."""
    experiment.begin("F04", "0 bytes, white space, 1 GB, lines of 500 MB, 200 MB and 40 kB")
    drops = cluster.open_inbox()
    scheduler = cluster.start_watching()
    drops.drop("first.txt", cluster.documents.text(1))
    drops.wait_until_delivered(1, 60, cluster.story)
    before = peak_megabytes(scheduler)
    line = f"{cluster.documents.text(2)[:-1]} {'x' * LONG_LINE_CHARACTERS}"

    drops.put(write_gigabyte(large / "gigabyte"), "gigabyte.txt")
    drops.put(write_line(large / "500", 500), "line-500.txt")
    drops.wait_until_delivered(3, 90, cluster.story)
    unread = peak_megabytes(scheduler)
    drops.put(write_line(large / "200", 200), "line-200.txt")
    for name, content in (("empty", ""), ("blank", " \n\t" * 9_000), ("line", line)):
        drops.drop(f"{name}.txt", content)
    drops.drop("plain.txt", cluster.documents.text(3))
    experiment.fault_is_over()

    drops.wait_until_delivered(8, 120, cluster.story)
    read = peak_megabytes(scheduler)
    experiment.finish(
        Allowance(memory_megabytes=_USUAL_MEGABYTES + READER_MEGABYTES),
        bound_seconds=WAITING_SECONDS + experiment.undisturbed_seconds,
        notes=f"scheduler with reader: {before} MB, {unread} MB beside 1 GB, {read} MB over 200 MB",
    )
    assert {name: drops.outcomes()[name] for name in _EXPECTED} == _EXPECTED
    assert unread <= _USUAL_MEGABYTES
    assert cluster.count("SELECT max(end_char - start_char) FROM chunks") < LONG_LINE_CHARACTERS
