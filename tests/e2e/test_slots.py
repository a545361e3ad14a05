"""A worker uses all of its slots, whatever its messages wait for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from pydantic import SecretStr

from tests.e2e.conftest import Stage, set_stage
from tests.fakes.configuration import CONCURRENCY, configuration
from tests.peers.answering_server import QUOTE, AnsweringHandler, AnsweringServer, material_of
from tests.peers.serving import serving_in_a_thread

# Many more than the slices that these slots need while they analyze chunks.
SLOTS = 44
WAITING = "SELECT count(*) FROM model_calls WHERE stage = 'synthesize' AND finished_at IS NULL"


class HoldingHandler(AnsweringHandler):
    """Answers the questions of syntheses only when they are released."""

    released = Event()

    def converse(self, user: str) -> None:
        if QUOTE.search(material_of(user)):
            self.released.wait(60)
        self.answer(user)


@pytest.fixture
def held(tmp_path: Path, database_url: SecretStr, broker_url: SecretStr) -> Iterator[Stage]:
    HoldingHandler.released.clear()
    provider = AnsweringServer(0.0, HoldingHandler)
    settings = configuration(
        provider.base_url,
        model=f"max_in_flight = {SLOTS}",
        more=f"[limits]\nfirst_in_flight = {SLOTS}",
    )
    settings = settings.replace(f"concurrency = {CONCURRENCY}", f"concurrency = {SLOTS}")
    with (
        serving_in_a_thread(provider),
        set_stage(tmp_path, settings, provider, database_url, broker_url) as stage,
    ):
        yield stage
        HoldingHandler.released.set()


def test_documents_that_wait_for_their_synthesis_leave_no_slot_unused(held: Stage) -> None:
    """The worker takes further messages until every slot waits for a synthesis."""
    folder = held.folder / "documents"
    folder.mkdir()
    for number in range(SLOTS + 4):
        sentences = [f"In year {year} document {number} was changed. " for year in range(100)]
        (folder / f"{number}.txt").write_text("".join(sentences), "utf-8")
    held.processes.start("scheduler")
    held.processes.start("worker")

    held.submit(str(folder))
    held.wait_for(f"SELECT ({WAITING}) >= {SLOTS}")

    HoldingHandler.released.set()
    held.wait_for("SELECT status = 'finished' FROM runs")
    assert held.value("SELECT bool_and(status = 'succeeded' AND chunk_count > 1) FROM jobs")
