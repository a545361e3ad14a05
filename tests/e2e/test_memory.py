"""A document that takes too much memory is quarantined, and the others succeed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.e2e.conftest import Stage, set_stage
from tests.fakes.configuration import configuration
from tests.fakes.processes import wait_until
from tests.peers.answering_server import serving

# Its outline of short lines takes a quarter of a gigabyte.
FINISHED = "SELECT bool_and(status = 'finished') FROM runs"
MAX_WORKERS = 8
LARGE = "a\n" * 2_000_000


@pytest.fixture
def small_stage(tmp_path: Path, database_url: SecretStr, broker_url: SecretStr) -> Iterator[Stage]:
    with serving(delay_seconds=0.1) as provider:
        settings = configuration(
            provider.base_url, pipeline="stalled_seconds = 4", worker="memory_megabytes = 200"
        )
        with set_stage(tmp_path, settings, provider, database_url, broker_url) as stage:
            yield stage


def ends_or_finishes(stage: Stage, worker: subprocess.Popen[bytes]) -> list[int]:
    wait_until(lambda: worker.poll() is not None or stage.value(FINISHED) is True, 120, "its end")
    return [] if worker.returncode is None else [worker.returncode]


@pytest.mark.nightly
def test_a_document_that_takes_too_much_memory_is_quarantined(small_stage: Stage) -> None:
    """Each worker that splits it ends in an ordinary way, and a supervisor starts the next one."""
    stage = small_stage
    (stage.folder / "large.txt").write_text(LARGE, "utf-8")
    (stage.folder / "small.txt").write_text("The council voted about the harbour.", "utf-8")
    stage.processes.start("scheduler")
    exits: list[int] = []

    stage.submit("large.txt")
    while stage.value(FINISHED) is not True and len(exits) < MAX_WORKERS:
        exits += ends_or_finishes(stage, stage.processes.start("worker"))
    stage.submit("small.txt")
    stage.wait_for(FINISHED, 120)

    assert set(exits) == {os.EX_SOFTWARE}
    ended = "SELECT status FROM jobs JOIN documents d ON d.id = document_id WHERE source LIKE "
    assert stage.value(f"{ended} '%large.txt'") == "quarantined"
    assert stage.value(f"{ended} '%small.txt'") == "succeeded"
    assert "too_large" in stage.processes.logs()
