"""F01, F09 and I6: kills at every step of the watch of an inbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from chordwise.domain.json_values import JsonObject
from tests.fakes.processes import ROOT
from tests.faults.disks import another_file_system

pytestmark = [pytest.mark.faults, pytest.mark.thorough]

SETTINGS = """
[inbox]
folders = ["inbox"]
stability_seconds = 0.05
quiet_seconds = 0.5
polling = true
polling_seconds = 0.05
"""


@pytest.fixture(params=["one file system", "two file systems"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return a home on the file system of the inbox, or on another one."""
    if request.param == "one file system":
        yield tmp_path / "home"
        return
    with another_file_system(tmp_path) as folder:
        yield folder / "home"


def killed_at_every_step(
    tmp_path: Path, home: Path, database_url: SecretStr, broker_url: SecretStr
) -> list[JsonObject]:
    config = tmp_path / "chordwise.toml"
    config.write_text(SETTINGS, "utf-8")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tests.faults.inbox_steps", str(tmp_path), str(home)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            "PATH": os.defpath,
            "PYTHONPATH": str(ROOT),
            "CHORDWISE_HOME": str(home),
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
    tmp_path: Path, home: Path, database_url: SecretStr, broker_url: SecretStr
) -> None:
    """I6: after each kill the file exists once, and the next watch delivers it with its note."""
    found = killed_at_every_step(tmp_path, home, database_url, broker_url)

    assert len(found) > 20
    assert [each["killed"] for each in found] == [True] * (len(found) - 1) + [False]
    for number, each in enumerate(found, start=1):
        expected = dict.fromkeys(("files", "contents", "side_cars", "notes"), number)
        assert {name: each[name] for name in expected} == expected, each
        assert each["hidden"] == [], each
