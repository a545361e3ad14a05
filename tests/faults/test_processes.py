"""P01 to P12: processes are killed, frozen, terminated, and run with wrong clocks."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import pytest

from tests.fakes.configuration import CONCURRENCY, LEASE_SECONDS
from tests.fakes.processes import wait_until
from tests.faults.allowance import Allowance
from tests.faults.cluster import API_KEY, COUNT_RECEIVED, Cluster
from tests.faults.experiment import MESSAGES, RECOVERY_SECONDS, Experiment
from tests.faults.members import Member
from tests.faults.provider import HOLD, Request

# The hit of each point at which the worker is killed, if possible during the work.
WORKER_POINTS = {
    "chunk.before_claim": 3,
    "chunk.claimed": 3,
    "call.before_request": 3,
    "call.answered": 3,
    "chunk.before_commit": 3,
    "chunk.committed": 3,
    "chord.before_count": 3,
    "chord.before_publish": 1,
    "chord.published": 1,
    "fan_out.before_chunks": 1,
    "fan_out.mid_publish": MESSAGES // 2,
    "fan_out.published": 1,
    "synthesis.claimed": 1,
    "synthesis.result_saved": 1,
    "synthesis.committed": 1,
    "broker.popped": 4,
}
IN_THE_SUBSET = ("chunk.claimed",)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=() if point in IN_THE_SUBSET else pytest.mark.thorough)
        for point in WORKER_POINTS
    ],
)
def test_a_worker_killed_at_any_step(cluster: Cluster, experiment: Experiment, point: str) -> None:
    """P01, P04: SIGKILL costs a lease, and at most a call for each slot of the worker."""
    hit = WORKER_POINTS[point]
    group = "P04" if point.startswith("broker.") else "P01"
    experiment.begin(f"{group} {point}", f"kill -9 of a worker at hit {hit}")
    cluster.start_scheduler()
    worker = cluster.start_worker(f"{point}:kill:{hit}")
    cluster.submit(cluster.documents.write(chunks=24))

    assert worker.wait_for_end() == -9
    experiment.fault_is_over()
    cluster.start_worker()

    experiment.finish()


@pytest.mark.thorough
@pytest.mark.parametrize(
    "point", ["chunk.claimed", "chunk.before_commit", "synthesis.result_saved", "chunk.committed"]
)
def test_a_worker_killed_during_small_documents(
    cluster: Cluster, experiment: Experiment, point: str
) -> None:
    """P01: a document of one chunk is stored completely or not at all."""
    experiment.begin(f"P01 small {point}", "kill -9 of a worker over 24 documents of one chunk")
    cluster.start_scheduler()
    worker = cluster.start_worker(f"{point}:kill")
    cluster.submit(*(cluster.documents.write(chunks=1) for _ in range(24)))

    assert worker.wait_for_end() == -9
    experiment.fault_is_over()
    cluster.start_worker()

    experiment.finish()
    promised = "SELECT count(*) FROM outbox WHERE task = 'chordwise.synthesize'"
    assert cluster.count(promised) == 0


@pytest.mark.thorough
def test_a_lost_message_is_detected_while_the_queue_moves(
    cluster: Cluster, experiment: Experiment
) -> None:
    """P04: a lost message is detected although the queue keeps moving."""
    experiment.begin("P04 two workers", "kill -9 between receiving and recording a message")
    cluster.start_scheduler()
    worker = cluster.start_worker("broker.popped:kill:2")
    cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=24))

    assert worker.wait_for_end() == -9
    experiment.fault_is_over()

    experiment.finish()


_HELD = "SELECT count(*) FROM chunks WHERE status = 'running'"
_TAKEN_OVER = "SELECT count(*) = {held} FROM chunks WHERE attempts = 2"
_ALL_LOST = "SELECT sum(count) = {held} FROM incidents WHERE kind = 'lease_lost'"


@pytest.mark.thorough
@pytest.mark.parametrize("when", ["while others work on it", "after others completed it"])
def test_a_worker_frozen_past_its_lease(
    cluster: Cluster, experiment: Experiment, when: str
) -> None:
    """P06: its late answers are discarded, and each lost lease is counted."""
    experiment.begin(f"P06 {when}", "SIGSTOP past the lease, then SIGCONT")
    cluster.start_scheduler()
    cluster.provider.treat(HOLD, times=CONCURRENCY)
    frozen = cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for(f"SELECT count(*) >= {CONCURRENCY} FROM model_calls")  # noqa: S608 - a constant of the test

    frozen.freeze()
    # One for each slot, and those of a prefetched slice.
    held = cluster.count(_HELD)
    assert CONCURRENCY <= held <= 2 * CONCURRENCY
    cluster.provider.release()  # its answers are available when it continues
    if when.startswith("while"):
        cluster.provider.delay_seconds = 2.0
    cluster.start_worker()
    if when.startswith("while"):
        cluster.wait_for(_TAKEN_OVER.format(held=held))
    else:
        cluster.wait_until_finished()
    frozen.thaw()
    experiment.fault_is_over()

    experiment.finish(bound_seconds=RECOVERY_SECONDS + 2 * 24 / CONCURRENCY)
    assert frozen.is_alive
    cluster.wait_for(_ALL_LOST.format(held=held))
    assert cluster.logs().count("lease.lost") == held


@pytest.mark.thorough
@pytest.mark.parametrize("point", ["chunk.before_commit", "synthesis.result_saved"])
def test_a_worker_frozen_in_a_transaction_does_not_block_others(
    cluster: Cluster, experiment: Experiment, point: str
) -> None:
    """P06: its row locks do not prevent others from finishing the document."""
    experiment.begin(f"P06 {point}", "SIGSTOP inside a transaction, then SIGCONT")
    cluster.start_scheduler()
    frozen = cluster.start_worker(f"{point}:freeze")
    cluster.submit(cluster.documents.write(chunks=24))
    frozen.wait_until_frozen()
    experiment.fault_is_over()
    cluster.start_worker()

    cluster.wait_until_finished(90)
    frozen.thaw()

    experiment.finish(
        bound_seconds=LEASE_SECONDS + RECOVERY_SECONDS + experiment.undisturbed_seconds
    )
    assert frozen.is_alive


ROUNDS = 10
MAX_DELAY_SECONDS = 30.0
_ATTEMPTS = "SELECT coalesce(max(attempts), 0) FROM chunks"
_RELEASED = "SELECT count(*) FROM chunks WHERE status = 'pending' AND started_at IS NOT NULL"
# From the fan-out of the document to the answer of the chunk.
_DELAY = "extract(epoch FROM c.finished_at - j.started_at)::float"
_DELAYS = (
    f"SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY {_DELAY}), max({_DELAY})"  # noqa: S608 - constants of the test
    " FROM chunks AS c JOIN jobs AS j ON j.id = c.job_id"
)


def started_worker(cluster: Cluster) -> Member:
    """Start a worker and wait until it has started."""
    worker = cluster.start_worker()
    wait_until(lambda: worker.has_started, 30, "the worker starts")
    return worker


@pytest.mark.thorough
@pytest.mark.parametrize("grace", [1, 5])
def test_a_terminated_worker_releases_its_chunks(
    cluster: Cluster, experiment: Experiment, grace: int
) -> None:
    """P05: unfinished chunks are released at once; no attempt is lost, and the exit code is 0."""
    experiment.begin(f"P05 grace {grace} s", "SIGTERM with calls longer than the grace period")
    cluster.provider.treat(HOLD, times=CONCURRENCY)
    cluster.start_scheduler()
    worker = cluster.start_worker(CHORDWISE_WORKER__SHUTDOWN_GRACE_SECONDS=str(grace))
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for(f"SELECT count(*) >= {CONCURRENCY} FROM model_calls")  # noqa: S608 - a constant of the test

    assert worker.terminate() == 0
    experiment.fault_is_over()

    assert cluster.count("SELECT count(*) FROM chunks WHERE status = 'running'") == 0
    # One for each slot, and those of a prefetched slice.
    released = cluster.count(_RELEASED)
    assert CONCURRENCY <= released <= 2 * CONCURRENCY
    cluster.provider.forgive()
    cluster.start_worker()
    experiment.finish()
    assert cluster.count(_ATTEMPTS) == 1
    assert cluster.count("SELECT count FROM incidents WHERE kind = 'released'") == released


@pytest.mark.thorough
def test_rolling_restarts_of_all_workers(cluster: Cluster, experiment: Experiment) -> None:
    """P05: ten rolling restarts delay no chunk by 30 s, and cost no attempt."""
    experiment.begin("P05 rolling", f"{ROUNDS} rolling restarts of two workers")
    cluster.provider.delay_seconds = 1.5
    cluster.start_scheduler()
    workers = [started_worker(cluster) for _ in range(2)]

    for _ in range(ROUNDS):
        cluster.submit(cluster.documents.write(chunks=12))
        for place, worker in enumerate(workers):
            assert worker.terminate() == 0
            workers[place] = started_worker(cluster)
    experiment.fault_is_over()

    cluster.wait_until_finished()
    ((most_of_them, all_of_them),) = cluster.rows(_DELAYS)
    assert isinstance(most_of_them, float)
    assert isinstance(all_of_them, float)
    experiment.finish(
        notes=f"delay of a chunk: p95 {most_of_them:.1f} s, at most {all_of_them:.1f} s",
        bound_seconds=RECOVERY_SECONDS + MAX_DELAY_SECONDS,
    )
    assert all_of_them < MAX_DELAY_SECONDS
    assert cluster.count(_ATTEMPTS) == 1


_LOST = "SELECT coalesce(sum(count), 0)::int FROM incidents WHERE kind = 'process_lost'"


def start_worker_of_two(cluster: Cluster) -> tuple[Member, psutil.Process]:
    """Start a worker with two processes, wait for both, and return the second one as well."""
    worker = cluster.start_worker(CHORDWISE_WORKER__PROCESSES="2")
    wait_until(lambda: worker.text().count("worker.started") == 2, 60, "both processes start")
    (sibling,) = psutil.Process(worker.process.pid).children()
    return worker, sibling


@pytest.mark.thorough
def test_a_killed_second_process_of_a_worker_is_replaced(
    cluster: Cluster, experiment: Experiment
) -> None:
    """P12: the first process continues, counts the loss, and starts a new second process."""
    experiment.begin("P12 second", "kill -9 of the second process of a worker")
    cluster.start_scheduler()
    worker, sibling = start_worker_of_two(cluster)
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.1)

    sibling.kill()
    worker.disturbed += 1
    experiment.fault_is_over()

    experiment.finish()
    assert worker.is_alive
    assert cluster.count(_LOST) == 1
    assert worker.text().count("worker.started") == 3


@pytest.mark.thorough
def test_the_second_process_exits_after_the_first_is_killed(
    cluster: Cluster, experiment: Experiment
) -> None:
    """P12: the second process exits, and another worker does the remaining work."""
    experiment.begin("P12 first", "kill -9 of the first process of a worker")
    cluster.start_scheduler()
    worker, sibling = start_worker_of_two(cluster)
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.1)

    os.kill(worker.process.pid, signal.SIGKILL)
    assert worker.process.wait() == -signal.SIGKILL
    wait_until(lambda: not sibling.is_running(), 20, "the second process leaves")
    experiment.fault_is_over()
    cluster.start_worker()

    experiment.finish()


# Longer than the interval at which Celery restores messages that were held too long.
_SECONDS_AT_WORK = 15.0


@pytest.mark.thorough
@pytest.mark.parametrize("shift", ["+7200", "-7200"])
@pytest.mark.parametrize("role", ["worker", "scheduler"])
def test_a_process_with_a_wrong_clock_causes_no_repeated_calls(
    cluster: Cluster, experiment: Experiment, role: str, shift: str
) -> None:
    """P09: leases use the database's clock; messages may be delivered twice, at no cost."""
    experiment.begin(f"P09 {role} {shift}", f"the clock of a {role} is off by {shift} s")
    cluster.provider.delay_seconds = 2.0
    wrong = f"clock:{shift}"
    cluster.start_scheduler(wrong if role == "scheduler" else "")
    cluster.start_worker(f"{wrong if role == 'worker' else 'clock:0'}; {COUNT_RECEIVED}")
    cluster.start_worker(f"clock:0; {COUNT_RECEIVED}")
    begun = time.monotonic()
    cluster.submit(cluster.documents.write(chunks=72))
    experiment.fault_is_over()

    cluster.wait_until_finished(90)
    wait_until(lambda: time.monotonic() > begun + _SECONDS_AT_WORK, 30, "Celery has looked")
    chunks = cluster.count("SELECT count(*) FROM chunks")
    experiment.finish(
        Allowance(extra_calls=0),
        notes=f"{cluster.received - chunks} chunks delivered twice",
        bound_seconds=RECOVERY_SECONDS + 2.0 * chunks / 8 + 10,
    )
    assert cluster.count("SELECT max(attempts) FROM chunks") == 1


@pytest.mark.thorough
def test_a_document_survives_kills_of_both_servers(
    own_cluster: Cluster, experiment: Experiment
) -> None:
    """R02, D01: PostgreSQL and an empty Valkey restart, and the document is finished."""
    experiment.begin("R02 D01", "kill -9 of broker (restarted empty) and database")
    own_cluster.start_both()
    own_cluster.submit(own_cluster.documents.write(chunks=24))
    own_cluster.wait_for_share(0.25)

    own_cluster.broker.kill()
    own_cluster.database.kill()
    own_cluster.database.start()
    own_cluster.broker.start(empty=True)
    experiment.fault_is_over()

    experiment.finish()


POISON = "The poisonous paragraph begins here."
MAX_EXECUTIONS = 3
NEIGHBOURS = 40
CHUNKS_OF_A_NEIGHBOUR = 3
_MEDIAN_LATENCY = """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at))
FROM jobs WHERE run_id = '{run_id}'"""


@dataclass(slots=True, kw_only=True)
class Poisoning:
    """Kills the worker that calls the model about the poison, and starts another one.

    Each worker has a separate API key, by which its requests are recognized.
    """

    cluster: Cluster
    workers: dict[str, Member] = field(default_factory=dict)
    executions: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start_worker(self) -> None:
        """Start a worker with a separate API key."""
        key = f"{API_KEY}-{len(self.workers)}"
        self.workers[f"Bearer {key}"] = self.cluster.start_worker(
            CHORDWISE_MODELS__PEER__API_KEY=key
        )

    def act(self, request: Request) -> None:
        if POISON in request.prompt:
            with self._lock:
                self.executions += 1
                self.workers[request.authorization].kill()
                self.start_worker()


def median_latency(cluster: Cluster, run_id: str) -> float:
    """Wait for a run; return the median time from submission to end of its documents."""
    cluster.wait_for(f"SELECT status = 'finished' FROM runs WHERE id = '{run_id}'", 120)  # noqa: S608 - an id of the test
    latency = cluster.value(_MEDIAN_LATENCY.format(run_id=run_id))
    assert isinstance(latency, float)
    return latency


def submit_neighbours(cluster: Cluster) -> str:
    documents = [cluster.documents.write(chunks=CHUNKS_OF_A_NEIGHBOUR) for _ in range(NEIGHBOURS)]
    return cluster.submit(*documents)


@pytest.mark.thorough
def test_a_chunk_that_kills_every_worker_fails(cluster: Cluster, experiment: Experiment) -> None:
    """P03: it fails after three executions; others keep their results and latency."""
    experiment.begin("P03", "a chunk that kills its worker at every attempt")
    poisoning = Poisoning(cluster=cluster)
    cluster.provider.delay_seconds = 0.5
    cluster.start_scheduler()
    for _ in range(2):
        poisoning.start_worker()
    wait_until(
        lambda: all(worker.has_started for worker in poisoning.workers.values()), 30, "a start"
    )
    undisturbed = median_latency(cluster, submit_neighbours(cluster))

    cluster.provider.on_arrival = poisoning.act
    experiment.fault_is_over()
    cluster.submit(cluster.documents.write(chunks=6, saying=POISON))
    latency = median_latency(cluster, submit_neighbours(cluster))

    experiment.finish(
        Allowance(ends=frozenset({"succeeded", "partial"})),
        notes=f"median latency of others {undisturbed:.1f} s, then {latency:.1f} s",
        bound_seconds=MAX_EXECUTIONS * RECOVERY_SECONDS + 2 * undisturbed,
    )
    assert poisoning.executions == MAX_EXECUTIONS
    assert cluster.rows("SELECT position, error_code FROM chunks WHERE status <> 'succeeded'") == [
        (0, "worker_lost")
    ]
    assert cluster.count("SELECT count(*) FROM jobs WHERE status = 'partial'") == 1
    assert latency < 2 * undisturbed


# Several batches: while one is stored, the files of the next one are read.
DOCUMENTS = 600
_POLLS_OF_STANDSTILL = 20
_NOT_ACCEPTED = 3
_INTAKES = "SELECT count(*) FROM intakes WHERE outcome <> 'not_taken'"


def parser() -> psutil.Process:
    """Return the process that reads the files of the running command."""
    parsers = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if "chordwise.readers.parser_main" in process.cmdline():
                parsers.append(process)
    assert len(parsers) == 1
    return parsers[0]


def wait_for_standstill(cluster: Cluster) -> None:
    """Wait until the intake stops: the parser of a file was suspended."""
    counts: list[int] = []

    def stands_still() -> bool:
        counts.append(cluster.count(_INTAKES))
        latest = counts[-_POLLS_OF_STANDSTILL:]
        return len(latest) == _POLLS_OF_STANDSTILL and len(set(latest)) == 1

    wait_until(stands_still, 30, "the intake stands still")


@pytest.mark.thorough
def test_a_killed_parser_costs_one_document(cluster: Cluster, experiment: Experiment) -> None:
    """P02: its file is recorded as unreadable, with a hint; all others are analyzed."""
    experiment.begin("P02", "kill -9 of the reader while it reads a document", chunks=2 * DOCUMENTS)
    cluster.start_both()
    documents = [str(cluster.documents.write(chunks=1)) for _ in range(DOCUMENTS)]
    cluster.to_database.delay(0.03)  # so that the intake is still running when the parser is killed

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


_CONFIGURATION_EXIT_CODE = 78
_ENOUGH = 1_024


def limit_files(member: Member, number: int) -> None:
    """Limit the open files of a running process."""
    resource.prlimit(member.process.pid, resource.RLIMIT_NOFILE, (number, _ENOUGH))


@pytest.mark.thorough
@pytest.mark.parametrize(("role", "files"), [("worker", 64), ("scheduler", 32)])
def test_too_low_a_file_limit_is_refused(
    cluster: Cluster, experiment: Experiment, role: str, files: int
) -> None:
    """P10: it refuses to start and states the reason; with more files, everything continues."""
    experiment.begin(f"P10 {role} {files}", f"a {role} that may open {files} files")
    cluster.members.start("scheduler" if role == "worker" else "worker", "")
    cluster.submit(cluster.documents.write(chunks=24))
    refused = cluster.members.start(role, f"files:{files}")

    assert refused.wait_for_end() == _CONFIGURATION_EXIT_CODE
    assert f"may open {files} files" in refused.text()
    assert "ulimit -n" in refused.text()
    experiment.fault_is_over()
    cluster.members.start(role, "")

    experiment.finish()


@pytest.mark.thorough
def test_the_required_file_limit_is_sufficient(cluster: Cluster, experiment: Experiment) -> None:
    """P10: the limit that the error message demands is sufficient."""
    experiment.begin("P10 worker 112", "a worker that may open 112 files", chunks=48)
    cluster.start_scheduler()
    cluster.start_worker("files:112")
    cluster.submit(*(cluster.documents.write(chunks=4) for _ in range(12)))

    experiment.finish()


@pytest.mark.thorough
def test_a_worker_without_free_file_descriptors(cluster: Cluster, experiment: Experiment) -> None:
    """P10: it continues or stops cleanly, and a new worker finishes the document."""
    experiment.begin(
        "P10 exhausted", "a running worker without free file descriptors, then a restart"
    )
    worker = cluster.start_both()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.1)

    limit_files(worker, psutil.Process(worker.process.pid).num_fds())
    cluster.to_database.cut()
    cluster.to_provider.cut()
    # Leases expire, or are renewed if the heartbeat could connect again before the others.
    time.sleep(2 * LEASE_SECONDS)  # noqa: TID251 - it has no free descriptor during that time
    worker.kill()
    experiment.fault_is_over()
    cluster.start_worker()

    experiment.finish(Allowance(extra_calls=CONCURRENCY, tracebacks=("Too many open files",)))
