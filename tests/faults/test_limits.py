"""P10: a process may open too few files."""

from __future__ import annotations

import resource

import psutil
import pytest

from tests.fakes.configuration import CONCURRENCY
from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment
from tests.faults.members import Member

_CONFIGURATION_EXIT_CODE = 78
_ENOUGH = 1_024


def limit_files(member: Member, number: int) -> None:
    """Let a process that runs open so many files from now on."""
    resource.prlimit(member.process.pid, resource.RLIMIT_NOFILE, (number, _ENOUGH))


@pytest.mark.thorough
@pytest.mark.parametrize(("role", "files"), [("worker", 64), ("scheduler", 32)])
def test_a_process_that_may_open_too_few_files(
    cluster: Cluster, experiment: Experiment, role: str, files: int
) -> None:
    """P10: it refuses to start and says why; with more files, everything goes on."""
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
def test_a_worker_with_as_few_files_as_it_asks_for(
    cluster: Cluster, experiment: Experiment
) -> None:
    """P10: what it says that it needs is enough."""
    experiment.begin("P10 worker 112", "a worker that may open 112 files", chunks=48)
    cluster.start_scheduler()
    cluster.start_worker("files:112")
    cluster.submit(*(cluster.documents.write(chunks=4) for _ in range(12)))

    experiment.finish()


@pytest.mark.thorough
def test_a_worker_whose_files_run_out(cluster: Cluster, experiment: Experiment) -> None:
    """P10: without a single file more it goes on or stops cleanly, and a new one finishes."""
    experiment.begin("P10 exhausted", "no file more for a worker at work, then a restart")
    cluster.start_scheduler()
    worker = cluster.start_worker()
    cluster.submit(cluster.documents.write(chunks=24))
    cluster.wait_for_share(0.1)

    limit_files(worker, psutil.Process(worker.process.pid).num_fds())
    cluster.to_database.cut()
    cluster.to_provider.cut()
    cluster.wait_for("SELECT count(*) = 0 FROM chunks WHERE lease_until > now()")
    worker.kill()
    experiment.fault_is_over()
    cluster.start_worker()

    experiment.finish(Allowance(extra_calls=CONCURRENCY, tracebacks=("Too many open files",)))
