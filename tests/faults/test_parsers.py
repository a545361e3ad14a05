"""P02: the process that reads files is killed over one of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.fakes.processes import wait_until
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment

# Several batches: while one is stored, the files of the next are read.
DOCUMENTS = 300
_POLLS_OF_STANDSTILL = 20
_NOT_ACCEPTED = 3
_INTAKES = "SELECT count(*) FROM intakes WHERE outcome <> 'not_taken'"


def parser() -> psutil.Process:
    """Return the process that reads the files of the command that is running."""
    found = [
        process
        for process in psutil.Process().children(recursive=True)
        if "chordwise.readers.child" in process.cmdline()
    ]
    assert len(found) == 1
    return found[0]


def wait_for_standstill(cluster: Cluster) -> None:
    """Wait until nothing is taken in any more: a file waits for its parser."""
    counts: list[int] = []

    def stands_still() -> bool:
        counts.append(cluster.count(_INTAKES))
        latest = counts[-_POLLS_OF_STANDSTILL:]
        return len(latest) == _POLLS_OF_STANDSTILL and len(set(latest)) == 1

    wait_until(stands_still, 30, "the intake stands still")


@pytest.mark.thorough
def test_a_parser_killed_over_a_document(cluster: Cluster, experiment: Experiment) -> None:
    """P02: its file is named as unreadable, with a hint; all others are taken in and answered."""
    experiment.begin("P02", "kill -9 of the reader's process over a document", chunks=2 * DOCUMENTS)
    cluster.start_scheduler()
    cluster.start_worker()
    documents = [str(cluster.documents.write(chunks=1)) for _ in range(DOCUMENTS)]
    cluster.to_database.delay(0.01)  # so that the intake takes long enough to be met

    with ThreadPoolExecutor(1) as pool:
        submitting = pool.submit(cluster.run, "submit", *documents)
        cluster.wait_for("SELECT count(*) > 2 FROM intakes WHERE outcome <> 'not_taken'")
        victim = parser()
        victim.suspend()
        wait_for_standstill(cluster)
        victim.kill()
        cluster.to_database.pass_on()
        experiment.fault_is_over()

    submitted = submitting.result()
    assert submitted.returncode == 0, submitted.stderr
    outcomes = cluster.rows(
        "SELECT outcome, reason, count(*) FROM intakes GROUP BY 1, 2 ORDER BY 1"
    )
    assert outcomes == [("accepted", None, DOCUMENTS - 1), ("unreadable", "parser_crashed", 1)]
    assert cluster.value(
        "SELECT source LIKE '%.txt' AND message <> '' AND hint <> '' FROM intakes"
        " WHERE outcome = 'unreadable'"
    )
    experiment.finish()
    assert cluster.run("wait", submitted.stdout.strip()).returncode == _NOT_ACCEPTED
