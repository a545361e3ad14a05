"""Tests of backups: yesterday's dump is restored while today's files lie in the inbox."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from chordwise.embedded.postgres import programs
from tests.conftest import Servers
from tests.e2e.conftest import Stage, stage_at_work
from tests.fakes.configuration import configuration
from tests.fakes.databases import Databases
from tests.fakes.dropping import Folders
from tests.fakes.processes import wait_until
from tests.peers.answering_server import serving

_INBOX = """
[inbox]
folders = ["inbox"]
stability_seconds = 0.5
quiet_seconds = 1
"""
_ANSWERED = """SELECT string_agg(regexp_replace(i.source, '.*/', ''), ' ' ORDER BY i.source)
FROM results AS r JOIN jobs AS j ON j.id = r.job_id JOIN intakes AS i ON i.id = j.intake_id"""


@pytest.fixture
def stage(servers: Servers, databases: Databases, tmp_path: Path) -> Iterator[Stage]:
    (tmp_path / "inbox").mkdir()
    with serving(delay_seconds=0.01) as provider:
        settings = configuration(provider.base_url, more=_INBOX)
        with stage_at_work(tmp_path, settings, provider, servers, databases) as backup_stage:
            yield backup_stage


def drop(folders: Folders, name: str) -> None:
    (folders.inbox / name).write_text(f"The bridge {name} was opened in 1856.", "utf-8")


def is_done(folders: Folders, name: str) -> None:
    done = folders.done / name
    wait_until(lambda: done.with_name(f"{name}.json").exists(), 60, f"{name} is done")


def run(program: str, *arguments: str) -> None:
    subprocess.run(
        [str(programs() / program), *arguments],
        env={"PATH": os.defpath},
        check=True,
        capture_output=True,
        timeout=60,
    )


def name_of_database(stage: Stage) -> str:
    url = make_url(stage.processes.environment["CHORDWISE_DATABASE_URL"])
    return str(url.database)


def restore(stage: Stage, servers: Servers, dump: Path) -> None:
    """Restore a dump into an empty database of the same name."""
    stage.engine.dispose()
    name = name_of_database(stage)
    database = sql.Identifier(name)
    with psycopg.connect(servers.postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(database))
    target = f"--dbname={servers.postgres.url(name)}"
    run("pg_restore", target, "--exit-on-error", str(dump))


def test_a_restored_backup_goes_on_with_the_files_of_today(stage: Stage, servers: Servers) -> None:
    """Files done after the backup are moved back; each file has one answer in the end."""
    folders, dump = Folders(root=stage.folder), stage.folder / "yesterday.dump"
    drop(folders, "yesterday.txt")
    is_done(folders, "yesterday.txt")
    url = servers.postgres.url(name_of_database(stage))
    run("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={url}")
    drop(folders, "morning.txt")
    is_done(folders, "morning.txt")
    stage.processes.end_all()
    drop(folders, "noon.txt")

    restore(stage, servers, dump)
    shutil.move(folders.done / "morning.txt", folders.inbox / "morning.txt")
    (folders.done / "morning.txt.json").unlink()
    stage.processes.start("scheduler")
    stage.processes.start("worker")
    for name in ("morning.txt", "noon.txt"):
        is_done(folders, name)

    assert stage.value(_ANSWERED) == "morning.txt noon.txt yesterday.txt"
    assert set(folders.hashes().values()) == {1}
    shown = stage.processes.run("sql", "SELECT count(*) AS documents FROM documents", "--json")
    assert '"documents": 3' in shown.stdout, shown.stderr
