"""A migration while work goes on: nobody who works notices it."""

from __future__ import annotations

from pathlib import Path

import pytest

from chordwise.storage import migration, revisions
from tests.e2e.conftest import Stage
from tests.fakes.later_migrations import LATER, NEWEST, newer_version, take_back
from tests.fakes.processes import wait_until


def test_up_down_and_up_while_a_worker_works(
    tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The running old worker notices nothing, and another old one may start on the new schema."""
    newer_version(tmp_path, monkeypatch, NEWEST)
    stage.processes.start("scheduler")
    stage.processes.start("worker")
    text = "".join(
        f"In {year} the council voted {year % 7} times. " * 4 for year in range(1500, 1700)
    )
    (stage.folder / "council.txt").write_text(text, "utf-8")
    stage.submit("council.txt")
    stage.wait_for("SELECT count(*) > 1 FROM chunks WHERE status = 'succeeded'")

    migration.migrate(stage.engine)
    take_back(stage.engine, NEWEST)
    migration.migrate(stage.engine)
    in_the_middle = stage.value("SELECT bool_or(status <> 'succeeded') FROM chunks")
    stage.processes.start("worker")

    stage.wait_for("SELECT status = 'finished' FROM runs")
    both = "both workers have started"
    wait_until(lambda: stage.processes.logs().count("worker.started") == 2, 60, both)
    assert in_the_middle
    with stage.engine.connect() as connection:
        assert revisions.current(connection) == LATER
    assert stage.value("SELECT bool_and(status = 'succeeded') FROM jobs")
    assert stage.value("SELECT max(attempts) = 1 FROM chunks")
    assert "Traceback" not in stage.processes.logs()
    assert "defect" not in stage.processes.logs()
