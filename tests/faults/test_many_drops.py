"""F10: ten thousand files at once, and a file every second for a while."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster
from tests.faults.drops import WAITING_SECONDS, Drops
from tests.faults.experiment import Experiment
from tests.faults.members import Member

pytestmark = pytest.mark.thorough

FILES = 10_000
GROWTH_MEGABYTES = 128
# Nothing is promised but that they are taken; so many a second are on two cores.
_FILES_PER_SECOND = 10
_OTHER_FOLDER_EACH = 4
_MEGABYTE = 1_048_576
_DELIVERED = f"SELECT count(*) > {FILES} FROM inbox_files WHERE delivered_at IS NOT NULL"  # noqa: S608 - a number
_WAITED = """
SELECT extract(epoch FROM r.created_at)::float, regexp_replace(f.name, '[^0-9]', '', 'g')::int
FROM inbox_files AS f JOIN inbox_intakes AS i ON i.inbox_file_id = f.id
JOIN jobs AS j ON j.intake_id = i.intake_id JOIN results AS r ON r.job_id = j.id"""


def stage(cluster: Cluster, drops: Drops) -> list[bytes]:
    """Write all files, of two folders, elsewhere; return their names in the order of their age."""
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
    """Return how much the scheduler holds once it has read a first file."""
    drops.drop("0.txt", cluster.documents.text(FILES))
    drops.wait_until_delivered(1, 60, cluster.story)
    scheduler.sample()
    return scheduler.peak_bytes


@pytest.mark.timeout(2 * FILES // _FILES_PER_SECOND)
def test_ten_thousand_files_at_once(cluster: Cluster, experiment: Experiment) -> None:
    """F10: all are taken, the oldest first whatever their folder, in bounded memory, none lost."""
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
    cluster.wait_for(_DELIVERED, bound)  # looking through the folders would slow the proxies down
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
    """F10: a stream of files is analyzed as it comes, and memory does not grow with it."""
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
        time.sleep(1)  # noqa: TID251 - the pace is what is tried
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
