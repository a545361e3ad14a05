"""F01, F09, F13 and I6: kills at every step of the watch of an inbox, and two watches of one."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject
from tests.fakes.processes import ROOT, wait_until
from tests.faults.cluster import Cluster
from tests.faults.disks import another_file_system
from tests.faults.drops import STABILITY_SECONDS, WAITING_SECONDS
from tests.faults.experiment import CHUNKS, RECOVERY_SECONDS, Experiment

pytestmark = [pytest.mark.faults, pytest.mark.thorough]

SETTINGS = """
[inbox]
folders = ["inbox"]
stability_seconds = 0.05
quiet_seconds = 0.5
polling = true
polling_seconds = 0.05

[pipeline]
lease_seconds = 0.6
heartbeat_seconds = 0.2
"""


@pytest.fixture(params=["one file system", "two file systems"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return a folder with an inbox; done/ and failed/ are there, or on another file system."""
    if request.param == "one file system":
        yield tmp_path
        return
    with another_file_system(tmp_path) as folder:
        for name in ("done", "failed"):
            (folder / name).mkdir()
            (tmp_path / name).symlink_to(folder / name)
        yield tmp_path


def killed_at_every_step(
    root: Path, database_url: SecretStr, broker_url: SecretStr
) -> list[JsonObject]:
    config = root / "chordwise.toml"
    config.write_text(SETTINGS, "utf-8")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tests.faults.inbox_steps", str(root)],
        capture_output=True,
        text=True,
        cwd=root,
        env={
            "PATH": os.defpath,
            "PYTHONPATH": str(ROOT),
            "CHORDWISE_HOME": str(root / "home"),
            "CHORDWISE_CONFIG": str(config),
            "CHORDWISE_DATABASE_URL": database_url.get_secret_value(),
            "CHORDWISE_BROKER_URL": broker_url.get_secret_value(),
        },
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-4_000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_a_kill_at_any_step_leaves_each_file_in_one_place(
    root: Path, database_url: SecretStr, broker_url: SecretStr
) -> None:
    """I6: after each kill the file exists once, and the next watch delivers it with its note."""
    lines = killed_at_every_step(root, database_url, broker_url)

    assert len(lines) > 10
    assert [line["killed"] for line in lines] == [True] * (len(lines) - 1) + [False]
    for number, line in enumerate(lines, start=1):
        expected = dict.fromkeys(("files", "contents", "side_cars", "notes"), number)
        assert {name: line[name] for name in expected} == expected, line
        assert line["hidden"] == [], line


AT_ONCE = 60
POINTS = ("claimed", "read", "submitted", "answered", "hidden", "moved", "noted")


@pytest.mark.parametrize("action", ["kill", "freeze"])
@pytest.mark.parametrize("point", POINTS)
def test_another_host_continues_after_the_lease(
    cluster: Cluster, experiment: Experiment, point: str, action: str
) -> None:
    """F13: two hosts watch one share; what one of them leaves behind, the other one delivers.

    A frozen one continues after it has lost its leases, and changes nothing.
    """
    experiment.begin(f"F13 {point} {action}", "two watches of one folder, and one of them is lost")
    drops = cluster.open_inbox()
    cluster.start_watching(CHORDWISE_HOME=str(cluster.folder / "other-home"))
    lost = cluster.members.start("inbox", f"inbox.{point}:{action}")
    wait_until(lambda: "inbox.watching" in lost.text(), 60, "both watch")
    numbers = itertools.count()

    def is_lost() -> bool:
        for number in itertools.islice(numbers, AT_ONCE):
            drops.drop(f"{number}.txt", cluster.documents.text(number))
        time.sleep(STABILITY_SECONDS)  # noqa: TID251 - the pause between two drops
        return f"failpoint inbox.{point} passed" in lost.text()

    wait_until(is_lost, 60, f"it is lost at {point}")
    experiment.fault_is_over()
    files = next(numbers)
    drops.wait_until_delivered(files, 120, cluster.story)
    if action == "freeze":
        lost.thaw()
        cluster.wait_for("SELECT count(*) = 0 FROM inbox_files WHERE delivered_at IS NULL")
        time.sleep(STABILITY_SECONDS)  # noqa: TID251 - the time for a mistake
        assert lost.is_alive
    experiment.finish(
        bound_seconds=RECOVERY_SECONDS
        + WAITING_SECONDS
        + files / CHUNKS * experiment.undisturbed_seconds,
        notes=f"{files} files",
    )
    assert set(drops.outcomes().values()) == {"done"}
    assert cluster.count("SELECT count(*) FROM inbox_files") == files
    assert cluster.count("SELECT count(*) FROM inbox_intakes") == files
