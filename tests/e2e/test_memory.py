"""A document that takes too much memory is quarantined, and the others succeed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.e2e.conftest import Stage, set_stage
from tests.fakes.configuration import configuration
from tests.peers.answering_server import serving

# Its outline of short lines takes a quarter of a gigabyte.
LARGE = "a\n" * 2_000_000


@pytest.fixture
def small_stage(tmp_path: Path, database_url: SecretStr, broker_url: SecretStr) -> Iterator[Stage]:
    """Prepare the environment for workers of one process with little memory."""
    with serving(delay_seconds=0.1) as provider:
        settings = configuration(
            provider.base_url, pipeline="stalled_seconds = 4", worker="memory_megabytes = 200"
        )
        with set_stage(tmp_path, settings, provider, database_url, broker_url) as stage:
            yield stage


def test_a_document_that_takes_too_much_memory_is_quarantined(small_stage: Stage) -> None:
    stage = small_stage
    (stage.folder / "large.txt").write_text(LARGE, "utf-8")
    (stage.folder / "small.txt").write_text("The council voted about the harbour.", "utf-8")
    stage.processes.start("scheduler")

    stage.submit("large.txt")
    exits = [stage.processes.start("worker").wait(60) for _ in range(3)]
    stage.processes.start("worker")
    stage.submit("small.txt")

    stage.wait_for("SELECT count(*) = 2 FROM runs WHERE status = 'finished'", 150)
    assert exits == [os.EX_SOFTWARE] * 3
    ended = "SELECT status FROM jobs JOIN documents d ON d.id = document_id WHERE source LIKE "
    assert stage.value(f"{ended} '%large.txt'") == "quarantined"
    assert stage.value(f"{ended} '%small.txt'") == "succeeded"
    assert "too_large" in stage.processes.logs()
