"""End-to-end tests of the batch lane, with processes that are killed while a batch runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.e2e.conftest import Stage, set_stage
from tests.fakes.configuration import configuration
from tests.fakes.processes import kill
from tests.peers.batch_provider import EXPIRED, question_of
from tests.peers.batch_server import BatchServer, serving_batches

DOCUMENTS = 12
# Documents that differ from each other, and the same question about each.
TWINS = 3
SENTENCES = "".join(f"In {year} the council of the town voted. " for year in range(1500, 1700))
FINISHED = "SELECT status = 'finished' FROM runs"
MODEL = """batch = true
api_key = "key"
input_usd_per_million_tokens = 100
output_usd_per_million_tokens = 200"""
LANE = """[batch]
gather_seconds = 1
poll_seconds = 0.5
max_poll_seconds = 1"""


@pytest.fixture
def server() -> Iterator[BatchServer]:
    """Serve both Batch APIs; a third of the questions expires on the first submission."""
    with serving_batches() as server:
        server.fate = lambda question, before: (
            EXPIRED if not before and sum(question.encode()) % 3 == 0 else "answered"
        )
        yield server


@pytest.fixture(params=["openai", pytest.param("anthropic", marks=pytest.mark.nightly)])
def batch_stage(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    server: BatchServer,
    database_url: SecretStr,
    broker_url: SecretStr,
) -> Iterator[Stage]:
    text = configuration(server.base_url, model=MODEL, pipeline="stalled_seconds = 4", more=LANE)
    settings = text.replace('"openai"', f'"{request.param}"')
    with set_stage(tmp_path, settings, server, database_url, broker_url) as stage:
        yield stage


def submit(stage: Stage) -> None:
    folder = stage.folder / "documents"
    folder.mkdir()
    for number in range(DOCUMENTS):
        text = f"Letter {number}. The harbour of town {number} was rebuilt in {1850 + number}."
        (folder / f"{number}.txt").write_text(text, "utf-8")
    (folder / "long.txt").write_text(SENTENCES, "utf-8")
    for number in range(TWINS):
        text = f"{' ' * number}The lighthouse of the harbour was painted again in 1901."
        (folder / f"twin-{number}.txt").write_text(text, "utf-8")
    stage.submit(str(folder), "--lane", "batch", "--budget", "500")


def check_results(stage: Stage, server: BatchServer) -> None:
    """Check that each document has one result, and that only expired questions were asked again."""
    lines = [line for batch in server.batches for line in batch.lines]
    fates = [fate for batch in server.batches for fate in batch.fates or []]
    counts = Counter(question_of(line) for line in lines)
    assert stage.count("SELECT count(*) FROM results") == DOCUMENTS + 1 + TWINS
    assert stage.count("SELECT count(*) FROM model_calls WHERE cache_hit") == TWINS - 1
    assert stage.value("SELECT bool_and(status = 'succeeded') FROM jobs")
    assert len({str(line["custom_id"]) for line in lines}) == len(lines)
    assert stage.count("SELECT count(*) FROM model_calls WHERE NOT cache_hit") == len(lines)
    assert server.journal == []
    assert fates.count(EXPIRED) > 0
    assert sum(counts.values()) - len(counts) == fates.count(EXPIRED)
    assert stage.value("SELECT max(attempts) <= 1 FROM chunks")
    assert stage.value("SELECT bool_and(service_tier = 'batch') FROM model_calls")
    assert stage.value("SELECT bool_and(reserved_usd = 0) FROM budgets")
    assert stage.value(
        "SELECT spent_usd = (SELECT sum(cost_usd) FROM model_calls) FROM budgets "
        "WHERE run_id IS NOT NULL"
    )
    assert "Traceback" not in stage.processes.logs()


@pytest.mark.nightly
def test_a_batch_with_expired_lines_survives_killed_processes(
    batch_stage: Stage, server: BatchServer
) -> None:
    server.holds = True
    scheduler, worker = (batch_stage.processes.start(name) for name in ("scheduler", "worker"))
    submit(batch_stage)
    batch_stage.wait_for("SELECT count(*) > 0 FROM batches WHERE status = 'running'")
    batch_stage.wait_for("SELECT count(*) = 0 FROM chunks WHERE status IN ('pending', 'running')")

    kill(worker)
    kill(scheduler)
    server.holds = False
    for program in ("scheduler", "worker"):
        batch_stage.processes.start(program)

    batch_stage.wait_for(FINISHED, seconds=120)
    check_results(batch_stage, server)
