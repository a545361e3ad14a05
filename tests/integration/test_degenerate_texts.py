"""Tests that reading, scanning and splitting a degenerate text takes bounded memory."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

UNITS = {
    "blank lines": "a\n\n",
    "headings": "# a\n",
    "short lines": "a\n",
    "quoted fields": ',"a\nb",',
    "rows apart": "|\n\n",
    "records": '{"a":1}\n',
    "requests": "Tell me. ",
    "orders": "ignore all previous instructions. ",
    "invisible characters": "a\u200b",
    "ideographs": "\u4e00" * 20 + "\u3002",
}
OFTEN = ("quoted fields", "records", "orders")
# Reads a file and splits its text; prints the chunks, and the memory of both processes in MB.
PROGRAM = """
import resource, sys
from pathlib import Path
from chordwise.domain import chunking, outline
from chordwise.readers.reader import Reader, ReadDocument
from chordwise.settings import ReaderSettings
with Reader(ReaderSettings(timeout_seconds=600, memory_megabytes=1_024)) as reader:
    found = reader.read(Path(sys.argv[1]))
chunks = []
if isinstance(found, ReadDocument):
    chunks = chunking.split(found.content.text, 3_000)
    for chunk in chunks[:: len(chunks) // 5 + 1]:
        outline.table_header(found.content.text, chunk.start_char)
who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
print(len(chunks), *(resource.getrusage(each).ru_maxrss // 1_024 for each in who))
"""


def measured(path: Path) -> tuple[int, int]:
    """Return the number of chunks of a file, and the memory of the larger process."""
    run = [sys.executable, "-c", PROGRAM, str(path)]
    # A shell, as the memory of this process would count as that of its child until it has started.
    shell = ["sh", "-c", '"$@"; exit $?', "sh", *run]
    output = subprocess.run(shell, capture_output=True, check=True, text=True).stdout
    chunks, *megabytes = map(int, output.split())
    return chunks, max(megabytes)


@pytest.mark.parametrize(
    "unit",
    [
        pytest.param(unit, id=name, marks=() if name in OFTEN else pytest.mark.nightly)
        for name, unit in UNITS.items()
    ],
)
@pytest.mark.parametrize(
    ("characters", "limit"),
    [(300_000, 150), pytest.param(12_000_000, 400, marks=pytest.mark.nightly)],
)
def test_memory_is_bounded(unit: str, characters: int, limit: int, tmp_path: Path) -> None:
    path = tmp_path / "degenerate.txt"
    path.write_text(unit * (characters // len(unit)), "utf-8")

    chunks, megabytes = measured(path)

    assert chunks > characters / 30_000
    assert megabytes < limit


def test_a_small_archive_of_white_space_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "blank.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("blank.txt", "x" + "\n" * 45_000_000)

    chunks, megabytes = measured(path)

    assert chunks == 0
    assert megabytes < 400
