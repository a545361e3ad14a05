"""F09: the store on another file system, disks that are full, and folders that tell no events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.processes import wait_until
from tests.faults.cluster import Cluster
from tests.faults.disks import SmallDisk, another_file_system, mounted
from tests.faults.drops import WAITING_SECONDS, Drops
from tests.faults.experiment import Experiment
from tests.faults.provider import HOLD

pytestmark = pytest.mark.thorough

FILES = 24
POLLING_SECONDS = 1.0
PADDING_BYTES = 2_000_000
# The pause after the sixth failure in a row; each is twice as long as the one before.
LONGEST_PAUSE_SECONDS = 32.0
_MEGABYTES = 24
_POLLING = f"polling = true\npolling_seconds = {POLLING_SECONDS}"


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    """Mount a file system of a few megabytes."""
    with mounted(_MEGABYTES) as small:
        yield small


def page(cluster: Cluster, number: int, padding_bytes: int = PADDING_BYTES) -> str:
    """Return a document that is large and says little."""
    return f"<p>{cluster.documents.text(number)}</p><!-- {'.' * padding_bytes} -->"


def drop_pages(cluster: Cluster, drops: Drops, count: int, padding_bytes: int) -> None:
    """Drop large files that take time, and room, to be copied."""
    for number in range(1, count + 1):
        drops.drop(f"{number}.html", page(cluster, number, padding_bytes))


def test_a_store_on_another_file_system(
    cluster: Cluster, experiment: Experiment, tmp_path: Path
) -> None:
    """F09: files are copied over and back, whole and once, although the watch is killed meanwhile.

    It polls, and hears of no event.
    """
    experiment.begin("F09 across", "store on another file system, no events, 3 kills of the watch")
    with another_file_system(tmp_path) as memory:
        home = str(memory / "home")
        drops = cluster.open_inbox(_POLLING, home=memory / "home")
        scheduler = cluster.start_watching(CHORDWISE_HOME=home)
        drop_pages(cluster, drops, FILES, PADDING_BYTES)
        for taken in (1, FILES // 3, FILES // 2):
            cluster.wait_for(f"SELECT count(*) >= {taken} FROM inbox_files")  # noqa: S608 - a number
            scheduler.kill()
            scheduler = cluster.start_scheduler(CHORDWISE_HOME=home)
        experiment.fault_is_over()

        drops.wait_until_delivered(FILES, 120, cluster.story)
        experiment.finish(
            bound_seconds=POLLING_SECONDS + WAITING_SECONDS + 3 * experiment.undisturbed_seconds
        )
        assert set(drops.outcomes().values()) == {"done"}
        assert cluster.count("SELECT count(*) FROM inbox_files") == FILES


def test_a_full_store(small_disk: SmallDisk, cluster: Cluster, experiment: Experiment) -> None:
    """F09: without room in the store files stay where they are, and are taken once there is some.

    The watch is killed and started again while there is none.
    """
    experiment.begin("F09 full store", "no room in the store, and a kill of the watch meanwhile")
    home = small_disk.folder / "home"
    drops = cluster.open_inbox(home=home)
    scheduler = cluster.start_watching(CHORDWISE_HOME=str(home))
    drops.drop("first.html", page(cluster, 99))
    drops.wait_until_delivered(1, 60, cluster.story)

    small_disk.fill()
    drop_pages(cluster, drops, FILES, PADDING_BYTES // 4)
    wait_until(lambda: _told(scheduler.text()) == FILES, 60, "every file is put off")
    scheduler.kill()
    scheduler = cluster.start_scheduler(CHORDWISE_HOME=str(home))
    wait_until(lambda: _told(scheduler.text()) == FILES, 60, "every file is put off again")
    left = len(list(drops.folders.inbox.iterdir()))
    small_disk.make_room()
    experiment.fault_is_over()

    drops.wait_until_delivered(FILES + 1, 120, cluster.story)
    experiment.finish(
        bound_seconds=LONGEST_PAUSE_SECONDS + WAITING_SECONDS + experiment.undisturbed_seconds,
        notes="each told once for each watch",
    )
    assert left == FILES
    assert _told(scheduler.text()) == FILES
    assert set(drops.outcomes().values()) == {"done"}


def test_a_full_disk_under_the_inbox(
    small_disk: SmallDisk, cluster: Cluster, experiment: Experiment
) -> None:
    """F09: without room beside the inbox files stay in the store, and are delivered later."""
    experiment.begin("F09 full inbox", "no room for done/, which is on another file system")
    drops = cluster.open_inbox(root=small_disk.folder)
    scheduler = cluster.start_watching()
    cluster.provider.treat(HOLD, times=FILES)
    drop_pages(cluster, drops, FILES, PADDING_BYTES // 4)
    cluster.wait_for(f"SELECT count(*) = {FILES} FROM inbox_files WHERE status = 'submitted'")  # noqa: S608 - a number

    small_disk.fill()
    cluster.provider.forgive()
    wait_until(lambda: _told(scheduler.text()) == FILES, 60, "every file is put off")
    delivered = drops.delivered_count()
    small_disk.make_room()
    experiment.fault_is_over()

    drops.wait_until_delivered(FILES, 120, cluster.story)
    experiment.finish(
        bound_seconds=LONGEST_PAUSE_SECONDS + WAITING_SECONDS + experiment.undisturbed_seconds,
        notes="each told once",
    )
    assert delivered == 0
    assert set(drops.outcomes().values()) == {"done"}


def _told(log: str) -> int:
    return log.count('"inbox.put_off"')
