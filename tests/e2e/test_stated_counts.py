"""A model counts more rows in prose than it gives; the result says so, and the exit code is 3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from chordwise.domain import json_values
from tests.e2e.conftest import Stage, set_stage
from tests.fakes.configuration import configuration
from tests.peers.answering_server import AnsweringHandler, AnsweringServer, completion
from tests.peers.serving import serving_in_a_thread

TEXT = (
    "The night was quiet. A pump failed in the north hall, and a fitter came within the hour.\n"
    "Later the lift of the south wing stopped between two floors. The lift was empty.\n"
)
SCHEMA = {
    "type": "object",
    "properties": {
        "incidents": {"type": "array", "items": {"type": "string"}, "x-count": True},
    },
    "required": ["incidents"],
    "additionalProperties": False,
}


class Omitting(AnsweringHandler):
    """Counts two incidents, and gives one of them."""

    def answer(self, user: str) -> bool:
        assert user
        schema = json_values.at(
            json.loads(self.request_body), "/response_format/json_schema/schema/properties/counts"
        )
        assert json_values.as_object(schema)["required"] == ["incidents"]
        quote = "A pump failed in the north hall"
        said = {
            "counts": {"incidents": 2},
            "data": {"incidents": [quote]},
            "evidence": [{"path": "/incidents/0", "quote": quote, "confidence": 9}],
        }
        return self.reply(200, json.dumps(completion(json.dumps(said))).encode())


@pytest.fixture
def stage(tmp_path: Path, database_url: SecretStr, broker_url: SecretStr) -> Iterator[Stage]:
    (tmp_path / "report.txt").write_text(TEXT, "utf-8")
    (tmp_path / "incidents.json").write_text(json.dumps(SCHEMA), "utf-8")
    with serving_in_a_thread(AnsweringServer(0, Omitting)) as provider:
        settings = configuration(provider.base_url)
        with set_stage(tmp_path, settings, provider, database_url, broker_url) as stage:
            stage.processes.start("scheduler")
            stage.processes.start("worker")
            yield stage


def test_a_counted_row_without_a_row_makes_the_result_partial(stage: Stage) -> None:
    run = stage.submit(
        str(stage.folder / "report.txt"), "--schema", str(stage.folder / "incidents.json")
    )

    waited = stage.processes.call("wait", run)

    assert waited.returncode == 3
    assert "1 of 2 rows of `incidents` are in the result." in " ".join(waited.stdout.split())
    assert len(stage.provider.journal) == 2
    (row,) = stage.rows("SELECT output, missing_rows, status FROM document_results")
    assert (list(row.output), row.status) == (["data", "evidence"], "partial")
    assert row.missing_rows == [
        {
            "path": "/data/incidents",
            "kept": 1,
            "found": 2,
            "max_items": None,
            "records": 1,
            "where": [],
        }
    ]
    facts = "SELECT count(*) FROM facts WHERE item LIKE '%counts%' OR path LIKE '%counts%'"
    assert stage.value(facts) == 0
