"""F04, F09 and F10: thousands of files, files of a gigabyte, and done/ on another disk."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.configuration import LEASE_SECONDS
from tests.fakes.processes import wait_until
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.disks import SmallDisk, another_file_system, mounted
from tests.faults.drops import WAITING_SECONDS, Drops
from tests.faults.experiment import Experiment
from tests.faults.members import Member
from tests.faults.provider import HOLD

pytestmark = pytest.mark.thorough

FILES = 10_000
GROWTH_MEGABYTES = 128
# A rate is not guaranteed; two cores reach this one.
_FILES_PER_SECOND = 10
_OTHER_FOLDER_EACH = 4
_MEGABYTE = 1_048_576
_DELIVERED = f"SELECT count(*) > {FILES} FROM inbox_files WHERE delivered_at IS NOT NULL"  # noqa: S608 - a number
_WAITED = """
SELECT extract(epoch FROM r.created_at)::float, regexp_replace(f.name, '[^0-9]', '', 'g')::int
FROM inbox_files AS f JOIN inbox_intakes AS i ON i.inbox_file_id = f.id
JOIN jobs AS j ON j.intake_id = i.intake_id JOIN results AS r ON r.job_id = j.id"""


def stage(cluster: Cluster, drops: Drops) -> list[bytes]:
    """Write the files for two folders elsewhere; return their names, ordered by age."""
    names = []
    for number in range(FILES):
        folder = "few" if number % _OTHER_FOLDER_EACH == 0 else "many"
        path = drops.folders.root / "staged" / folder / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(cluster.documents.text(number), "utf-8")
        os.utime(path, (number, number))
        drops.expect(path)
        names.append(os.fsencode(Path("all") / folder / path.name))
    return names


def base_bytes(cluster: Cluster, drops: Drops, scheduler: Member) -> int:
    """Return the memory of the scheduler after it has read a first file."""
    drops.drop("0.txt", cluster.documents.text(FILES))
    drops.wait_until_delivered(1, 60, cluster.story)
    scheduler.sample()
    return scheduler.peak_bytes


@pytest.mark.timeout(2 * FILES // _FILES_PER_SECOND)
def test_ten_thousand_files_are_taken_in_order(cluster: Cluster, experiment: Experiment) -> None:
    """F10: all files are taken, oldest first across folders, in bounded memory; none is lost."""
    experiment.begin("F10 at once", f"{FILES:,} files in two folders, renamed into the inbox")
    cluster.provider.delay_seconds = 0.0
    drops = cluster.open_inbox()
    names = stage(cluster, drops)
    scheduler = cluster.start_watching()
    base = base_bytes(cluster, drops, scheduler)

    (drops.folders.root / "staged").rename(drops.folders.inbox / "all")
    experiment.fault_is_over()
    begun, bound = time.monotonic(), FILES / _FILES_PER_SECOND
    cluster.wait_for(f"SELECT count(*) > {FILES} FROM intakes WHERE outcome = 'accepted'", bound)  # noqa: S608 - a number
    taken_seconds = time.monotonic() - begun
    cluster.wait_for(_DELIVERED, bound)  # listing the folders would slow the proxies down
    drops.wait_until_delivered(FILES + 1, WAITING_SECONDS, cluster.story)

    growth = (scheduler.peak_bytes - base) // _MEGABYTE
    experiment.finish(
        bound_seconds=bound,
        notes=f"accepted after {taken_seconds:.0f} s;"
        f" scheduler {base // _MEGABYTE} MB + {growth} MB",
    )
    order = [row[0] for row in cluster.rows("SELECT raw_name FROM inbox_files ORDER BY id")]
    assert order[1 : FILES + 1] == names
    assert growth < GROWTH_MEGABYTES


@pytest.mark.timeout(0)
def test_a_file_each_second(
    request: pytest.FixtureRequest, cluster: Cluster, experiment: Experiment
) -> None:
    """F10: each file of a stream is analyzed as it arrives, and memory does not grow."""
    minutes: float = request.config.getoption("--stream-minutes", 2.0)
    files = round(minutes * 60)
    experiment.begin("F10 stream", f"a file each second for {minutes:g} min")
    drops = cluster.open_inbox()
    scheduler = cluster.start_watching()
    base = base_bytes(cluster, drops, scheduler)

    dropped = {}
    for number in range(1, files + 1):
        dropped[number] = time.time()
        drops.drop(f"{number}.txt", cluster.documents.text(number))
        time.sleep(1)  # noqa: TID251 - the rate of the stream
    experiment.fault_is_over()

    drops.wait_until_delivered(files + 1, 60, cluster.story)
    rows = cluster.rows(_WAITED)
    waited = [float(str(at)) - dropped[int(str(number))] for at, number in rows if number]
    growth = (scheduler.peak_bytes - base) // _MEGABYTE
    experiment.finish(
        bound_seconds=WAITING_SECONDS + experiment.undisturbed_seconds,
        notes=f"from drop to row: median {statistics.median(waited):.1f} s, at most"
        f" {max(waited):.1f} s; scheduler {base // _MEGABYTE} MB + {growth} MB",
    )
    assert len(waited) == files
    assert growth < GROWTH_MEGABYTES


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
    """Return a folder for large files; they are removed from all folders afterwards."""
    folder = cluster.folder / "large"
    folder.mkdir()
    yield folder
    for path in cluster.folder.rglob("*.txt"):
        if path.stat().st_size > _MEGABYTE:
            path.unlink()


def write_line(path: Path, megabytes: int) -> Path:
    """Write one line of words without a sentence end."""
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(b"words of " * (_MEGABYTE // 9) + b" " * (_MEGABYTE % 9))
    return path


def write_gigabyte(path: Path) -> Path:
    """Write a sparse text file of a gigabyte."""
    with path.open("wb") as file:
        file.write(b"A text that never ends. ")
        file.truncate(1_024 * _MEGABYTE)
    return path


def peak_megabytes(member: Member) -> int:
    """Return the peak memory of a member and its children."""
    return member.peak_bytes // _MEGABYTE


def test_empty_and_oversized_files_are_refused(
    cluster: Cluster, large: Path, experiment: Experiment
) -> None:
    """F04: each file has a clear code; oversized files are not read; a long line is split."""
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
        notes=f"scheduler with reader: {before} MB, {unread} MB after 1 GB, {read} MB after 200 MB",
    )
    assert {name: drops.outcomes()[name] for name in _EXPECTED} == _EXPECTED
    assert unread <= _USUAL_MEGABYTES
    assert cluster.count("SELECT max(end_char - start_char) FROM chunks") < LONG_LINE_CHARACTERS


FEW_FILES = 24
POLLING_SECONDS = 1.0
PADDING_BYTES = 2_000_000
# The pause after six failures; each pause is twice as long as the one before.
MAX_PAUSE_SECONDS = 32.0
_MEGABYTES = 24
_POLLING = f"polling = true\npolling_seconds = {POLLING_SECONDS}"


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    """Mount a file system of a few megabytes."""
    with mounted(_MEGABYTES) as small:
        yield small


def page(cluster: Cluster, number: int, padding_bytes: int = PADDING_BYTES) -> str:
    """Return a large document with a short text."""
    return f"<p>{cluster.documents.text(number)}</p><!-- {'.' * padding_bytes} -->"


def drop_pages(cluster: Cluster, drops: Drops, count: int, padding_bytes: int) -> None:
    """Drop large files, which take time and space to copy."""
    for number in range(1, count + 1):
        drops.drop(f"{number}.html", page(cluster, number, padding_bytes))


def deliver_to(drops: Drops, disk: Path) -> None:
    """Put done/ and failed/ on another disk, as for an inbox that is the root of a share."""
    for folder in (drops.folders.done, drops.folders.failed):
        (disk / folder.name).mkdir()
        folder.symlink_to(disk / folder.name)


def test_delivery_to_another_file_system_survives_kills(
    cluster: Cluster, experiment: Experiment, tmp_path: Path
) -> None:
    """F09: files are copied to done completely and once, despite kills of the watch.

    The watch polls, and receives no events.
    """
    experiment.begin("F09 across", "done/ on another file system, no events, 3 kills of the watch")
    drops = cluster.open_inbox(_POLLING)
    with another_file_system(tmp_path) as memory:
        deliver_to(drops, memory)
        scheduler = cluster.start_watching()
        drop_pages(cluster, drops, FEW_FILES, PADDING_BYTES)
        for ended in (1, FEW_FILES // 3, FEW_FILES // 2):
            cluster.wait_for(
                f"SELECT count(*) >= {ended} FROM inbox_files WHERE delivered_at IS NOT NULL"  # noqa: S608 - a number
            )
            scheduler.kill()
            scheduler = cluster.start_scheduler()
        experiment.fault_is_over()

        drops.wait_until_delivered(FEW_FILES, 120, cluster.story)
        experiment.finish(
            bound_seconds=LEASE_SECONDS
            + POLLING_SECONDS
            + WAITING_SECONDS
            + 3 * experiment.undisturbed_seconds
        )
        assert set(drops.outcomes().values()) == {"done"}
        assert cluster.count("SELECT count(*) FROM inbox_files") == FEW_FILES


def test_delivery_waits_for_room_beside_the_inbox(
    small_disk: SmallDisk, cluster: Cluster, experiment: Experiment
) -> None:
    """F09: while done/ has no room, files remain in the inbox; they are delivered later."""
    experiment.begin("F09 full disk", "disk of done/ full, on another file system")
    drops = cluster.open_inbox()
    deliver_to(drops, small_disk.folder)
    scheduler = cluster.start_watching()
    cluster.provider.treat(HOLD, times=FEW_FILES)
    drop_pages(cluster, drops, FEW_FILES, PADDING_BYTES // 4)
    cluster.wait_for(f"SELECT count(*) = {FEW_FILES} FROM inbox_files WHERE status = 'submitted'")  # noqa: S608 - a number

    small_disk.fill()
    cluster.provider.forgive()
    wait_until(lambda: _told(scheduler.text()) == FEW_FILES, 60, "every file is put off")
    delivered, left = drops.delivered_count(), len(list(drops.folders.inbox.glob("*.html")))
    small_disk.make_room()
    experiment.fault_is_over()

    drops.wait_until_delivered(FEW_FILES, 120, cluster.story)
    experiment.finish(
        bound_seconds=MAX_PAUSE_SECONDS + WAITING_SECONDS + experiment.undisturbed_seconds,
        notes="each reported once",
    )
    assert (delivered, left) == (0, FEW_FILES)
    assert set(drops.outcomes().values()) == {"done"}


def _told(log: str) -> int:
    return log.count('"inbox.postponed"')
