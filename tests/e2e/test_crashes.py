"""Votes and a critique survive a killed worker."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Stage
from tests.fakes.processes import kill

pytestmark = pytest.mark.nightly
SENTENCES = "".join(
    f"In year {year} the council of the town voted {year % 7} times about the harbour. "
    for year in range(1500, 1800)
)
FINISHED = "SELECT status = 'finished' FROM runs"


def submit(stage: Stage, *options: str) -> None:
    document = stage.folder / "council.txt"
    document.write_text(SENTENCES, "utf-8")
    stage.submit(str(document), *options)


def check_results(stage: Stage, max_extra_calls: int, votes: int = 1) -> None:
    """Check what must hold after every crash."""
    chunks = stage.count("SELECT count(*) FROM chunks")
    later = "stage IN ('synthesize', 'critique', 'revise')"
    syntheses = stage.count(f"SELECT count(*) FROM model_calls WHERE {later}")  # noqa: S608 - constants of the test
    assert chunks > 8
    assert stage.value("SELECT bool_and(status = 'succeeded') FROM jobs")
    assert stage.count("SELECT count(*) FROM results") == 1
    assert stage.value("SELECT coverage = 1 FROM results")
    assert stage.value("SELECT intakes_balance AND jobs_balance FROM run_accounts")
    assert stage.value("SELECT bool_and(grounded) FROM facts WHERE quote IS NOT NULL")
    calls = stage.count("SELECT count(*) FROM model_calls WHERE NOT cache_hit")
    cut_off = stage.count("SELECT count(*) FROM model_calls WHERE finished_at IS NULL")
    assert calls - cut_off <= len(stage.provider.journal) <= calls
    assert len(stage.provider.journal) <= votes * chunks + syntheses + max_extra_calls
    assert "Traceback" not in stage.processes.logs()


def test_a_vote_and_a_critique_survive_a_killed_worker(stage: Stage) -> None:
    """Answered samples are not requested again, and the final answer is critiqued."""
    stage.processes.start("scheduler")
    worker = stage.processes.start("worker")
    submit(stage, "--votes", "3", "--critique")
    stage.wait_for("SELECT count(*) > 8 FROM model_calls WHERE valid")

    kill(worker)
    stage.processes.start("worker")

    stage.wait_for(FINISHED)
    check_results(stage, max_extra_calls=4, votes=3)
    assert stage.value("SELECT agreement = 1 FROM results")
    assert stage.value("SELECT critique_outcome FROM document_results") == "revised"
    assert stage.count("SELECT count(DISTINCT sample) FROM model_calls") == 3
