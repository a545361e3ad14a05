"""P13 to P16 and D08: group commits, counters, permits and large runs after a lost process."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from chordwise.pipeline.runtime.messages import CHUNK_QUEUE
from tests.fakes.configuration import CONCURRENCY
from tests.fakes.processes import wait_until
from tests.faults.allowance import SUCCEEDED, Allowance
from tests.faults.cluster import Cluster
from tests.faults.documents import Documents
from tests.faults.experiment import CHUNKS, MESSAGES, RECOVERY_SECONDS, Experiment
from tests.faults.provider import HOLD

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(600)]

SMALL_DOCUMENTS = 24


@pytest.mark.parametrize("documents", [1, SMALL_DOCUMENTS])
def test_a_worker_killed_between_commit_and_acknowledgement(
    cluster: Cluster, experiment: Experiment, documents: int
) -> None:
    """P13: committed answers are not requested again, although no thread was notified."""
    injected = f"kill -9 after a group is committed, documents: {documents}"
    experiment.begin(f"P13 group committed {documents}", injected)
    cluster.start_scheduler()
    worker = cluster.start_worker("group.committed:kill:3")
    chunks = CHUNKS // documents
    cluster.submit(*(cluster.documents.write(chunks=chunks) for _ in range(documents)))

    assert worker.wait_for_end() == -9
    experiment.fault_is_over()
    cluster.start_worker()

    experiment.finish()


def test_a_failed_group_commit_is_repeated_by_each_thread(
    cluster: Cluster, experiment: Experiment
) -> None:
    """P13: the other threads are notified, and store their answers themselves."""
    experiment.begin("P13 storing thread", "the storing thread dies before the third group")
    cluster.start_scheduler()
    worker = cluster.start_worker("group.before_commit:raise:3")
    cluster.submit(cluster.documents.write(chunks=24))
    experiment.fault_is_over()

    experiment.finish(
        Allowance(ends=SUCCEEDED | {"partial"}, extra_calls=1, tracebacks=("InjectedError",))
    )
    assert worker.is_alive
    assert cluster.count(_FAILED) <= 1  # the chunk of the failed thread
    assert "failpoint group.before_commit passed" in worker.text()


_FAILED = "SELECT count(*) FROM chunks WHERE status = 'failed'"
# A row that PostgreSQL rejects at every attempt.
_REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'this row is refused'; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON chunks FOR EACH ROW
    WHEN (NEW.status = 'succeeded' AND NEW.id = '{chunk}') EXECUTE FUNCTION refuse()"""
_A_CHUNK = "SELECT id FROM chunks ORDER BY id OFFSET 5 LIMIT 1"
_REFUSED = "SELECT count(*) FROM chunks WHERE status = 'failed' AND error_code = 'internal'"


def test_a_rejected_row_fails_without_its_group(cluster: Cluster, experiment: Experiment) -> None:
    """P13: only its chunk fails, with a message; the others of its group are stored."""
    experiment.begin("P13 bad row", "PostgreSQL rejects the end of one of 24 chunks")
    cluster.start_scheduler()
    cluster.submit(*(cluster.documents.write(chunks=1) for _ in range(SMALL_DOCUMENTS)))
    cluster.wait_for(f"SELECT count(*) = {SMALL_DOCUMENTS} FROM chunks")  # noqa: S608 - a number
    with cluster.database.connect(cluster.name) as other:
        other.execute(_REFUSE.format(chunk=cluster.value(_A_CHUNK)).encode())
    cluster.start_worker()
    experiment.fault_is_over()

    experiment.finish(
        Allowance(ends=SUCCEEDED | {"failed"}, tracebacks=("this row is refused",)),
    )
    assert cluster.count(_REFUSED) == 1
    succeeded = "SELECT count(*) FROM chunks WHERE status = 'succeeded'"
    assert cluster.count(succeeded) == SMALL_DOCUMENTS  # including that of the oracle


def test_two_processes_with_the_same_slice_share_its_chunks(
    cluster: Cluster, experiment: Experiment
) -> None:
    """P14: each chunk is claimed, called and stored once."""
    experiment.begin("P14", "every message of a document twice, for two workers")
    cluster.provider.delay_seconds = 1.0
    cluster.start_scheduler()
    fanning = cluster.start_worker("fan_out.published:kill")
    cluster.submit(cluster.documents.write(chunks=24))
    assert fanning.wait_for_end() == -9
    with cluster.broker.client() as client:
        queue = f"chordwise:{CHUNK_QUEUE}"
        messages = client.lrange(queue, 0, -1)
        assert len(messages) > MESSAGES // 2  # the killed worker has the others
        client.rpush(queue, *messages)
    experiment.fault_is_over()
    for _ in range(2):
        cluster.start_worker()

    experiment.finish(bound_seconds=RECOVERY_SECONDS + experiment.undisturbed_seconds + 24)


@pytest.mark.parametrize("wrong_by", [1, -1])
def test_a_wrong_countdown_causes_one_synthesis(
    cluster: Cluster, experiment: Experiment, wrong_by: int
) -> None:
    """P15: the states of the chunks decide; the synthesis runs once, after the last chunk."""
    experiment.begin(
        f"P15 {wrong_by:+}", f"jobs.open_chunks off by {wrong_by:+} with a quarter done"
    )
    cluster.provider.delay_seconds = 0.5
    cluster.start_both()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.25)

    with cluster.database.connect(cluster.name) as other:
        other.execute(f"UPDATE jobs SET open_chunks = open_chunks + ({wrong_by})".encode())  # noqa: S608 - a number
    experiment.fault_is_over()

    experiment.finish(bound_seconds=RECOVERY_SECONDS + experiment.undisturbed_seconds + 8)
    syntheses = "SELECT count(*) FROM model_calls WHERE stage = 'synthesize'"
    assert cluster.count(syntheses) == 1


# `lease_seconds` of limits/shared.py: the timeout of a call, plus a margin.
_PERMIT_SECONDS = 25.0


def test_permits_of_a_killed_worker_expire(cluster: Cluster, experiment: Experiment) -> None:
    """P16: the permits of a killed worker expire when its calls would have ended."""
    experiment.begin("P16", f"kill -9 of a worker that holds all {CONCURRENCY} permits")
    cluster.members.environment = {
        **cluster.members.environment,
        "CHORDWISE_LIMITS__FIRST_IN_FLIGHT": str(CONCURRENCY),
        "CHORDWISE_LIMITS__MAX_IN_FLIGHT": str(CONCURRENCY),
    }
    cluster.provider.treat(HOLD, times=CONCURRENCY)
    worker = cluster.start_both()
    cluster.submit(cluster.documents.write(chunks=24))
    wait_until(lambda: len(cluster.provider.requests) == CONCURRENCY, 60, "all permits are taken")

    worker.kill()
    experiment.fault_is_over()
    cluster.start_worker()
    cluster.provider.release()

    experiment.finish(
        bound_seconds=_PERMIT_SECONDS + RECOVERY_SECONDS + experiment.undisturbed_seconds
    )


_RESTARTS = 5
_JOBS_A_SECOND = 25
_ROWS_PER_FILE = 100_000


@pytest.fixture
def jobs(request: pytest.FixtureRequest) -> int:
    """Return the number of jobs from `--many-jobs`."""
    return int(request.config.getoption("--many-jobs"))


@pytest.mark.timeout(0)
def test_many_jobs_while_the_database_restarts(
    own_cluster: Cluster, experiment: Experiment, jobs: int
) -> None:
    """D08: a very large run ends with a result for each job, and repeats no call."""
    experiment.begin("D08", f"{jobs:,} jobs, PostgreSQL killed {_RESTARTS} times")
    own_cluster.provider.delay_seconds = 0.0
    files = _csv_files(own_cluster.documents, jobs)
    own_cluster.start_scheduler()
    own_cluster.start_worker(CHORDWISE_WORKER__CONCURRENCY="16")
    columns = ("--text-column", "text", "--id-column", "id")
    done = own_cluster.run("submit", *columns, *map(str, files), timeout=60 + jobs / 10)
    assert done.returncode == 0, done.stderr

    for restart in range(1, _RESTARTS + 1):
        share = restart / (_RESTARTS + 1)
        own_cluster.wait_for_share(share, jobs)
        own_cluster.database.kill()
        own_cluster.database.start()
    experiment.fault_is_over()

    seconds = jobs / _JOBS_A_SECOND
    experiment.finish(timeout_seconds=10 * seconds, bound_seconds=RECOVERY_SECONDS + 30 + seconds)
    assert own_cluster.count("SELECT count(*) FROM results") == jobs + 1


def _csv_files(documents: Documents, rows: int) -> list[Path]:
    """Write files with a document per row, each within the limit of documents per file."""
    files = []
    for first in range(0, rows, _ROWS_PER_FILE):
        files.append(documents.folder / f"rows-{first}.csv")
        with files[-1].open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "text"])
            numbers = range(first, min(first + _ROWS_PER_FILE, rows))
            writer.writerows((number, documents.text(number)) for number in numbers)
    return files
