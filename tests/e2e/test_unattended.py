"""Tests of unattended work: a watched folder, a schedule, and a webhook at the end of a run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Servers
from tests.e2e.conftest import Stage, stage_at_work
from tests.fakes.configuration import configuration
from tests.fakes.databases import Databases
from tests.fakes.dropping import Folders
from tests.fakes.processes import wait_until
from tests.peers.answering_server import serving
from tests.peers.webhook_receiver import WebhookReceiver, receiving

pytestmark = pytest.mark.xdist_group("unattended")

LETTERS = 12
STABILITY_SECONDS = 1.0
SETTINGS = f"""
[deliveries.webhook]
url = "{{url}}"
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
allow_http = true
allow_private_addresses = true
timeout_seconds = 4

[deliveries.file]
folder = "{{folder}}"
format = "csv"

[inbox]
folders = ["inbox"]
stability_seconds = {STABILITY_SECONDS}
quiet_seconds = 2

[profiles.letters]
instructions = "who writes to whom"

[schedules.nightly]
cron = "0 2 * * *"
time_zone = "Europe/Berlin"
run = "submit letters"
"""
TEXT = "The council of Lindau voted in 1856 about the harbour. It was rebuilt in the same year. "
BRIDGES = "run_id = (SELECT id FROM runs WHERE name = 'bridges')"
NIGHTLY = "run_id = (SELECT id FROM runs WHERE schedule_run_id IS NOT NULL)"
RESULTS = f"SELECT count(*) FROM results AS r JOIN jobs AS j ON j.id = r.job_id WHERE {NIGHTLY}"  # noqa: S608 - constants of the test
SOON = "UPDATE schedules SET next_due_at = now() + interval '2 seconds'"
ENDED = "SELECT count(*) = 1 FROM schedule_runs WHERE status = 'succeeded'"


@pytest.fixture(scope="module")
def receiver() -> Iterator[WebhookReceiver]:
    with receiving() as server:
        yield server


@pytest.fixture(scope="module")
def stage(
    servers: Servers,
    databases: Databases,
    tmp_path_factory: pytest.TempPathFactory,
    receiver: WebhookReceiver,
) -> Iterator[Stage]:
    """Prepare one environment for all tests of this module, with running processes."""
    folder = tmp_path_factory.mktemp("unattended")
    for name in ("delivered", "letters"):
        (folder / name).mkdir()
    for number in range(LETTERS):
        text = f"Letter {number}: the bridge was opened in the year {1700 + number}."
        (folder / "letters" / f"{number:03}.txt").write_text(text, "utf-8")
    more = SETTINGS.format(url=receiver.url, folder=folder / "delivered")
    with serving(delay_seconds=0.01) as provider:
        settings = configuration(provider.base_url, pipeline="stalled_seconds = 4", more=more)
        with stage_at_work(folder, settings, provider, servers, databases) as unattended_stage:
            yield unattended_stage


@pytest.fixture(scope="module")
def folders(stage: Stage) -> Folders:
    """Wait until the processes work: a first file is delivered.

    It is dropped before file events arrive, into an inbox that the scheduler creates at its start,
    and must be found long before the next full scan.
    """
    folders = Folders(root=stage.folder)
    wait_until(folders.inbox.is_dir, 60, "the inbox is made")
    (folders.inbox / "first.txt").write_text("The first file. It wakes everybody up.", "utf-8")
    wait_until(delivered(folders.done / "first.txt"), 25, "the first file is done")
    (folders.inbox / "letters").mkdir(exist_ok=True)
    stage.wait_for("SELECT count(*) = 1 FROM results")
    return folders


def delivered(path: Path) -> Callable[[], bool]:
    return lambda: path.exists() and path.with_name(f"{path.name}.json").exists()


def test_a_dropped_file_has_a_result_within_the_delay_and_two_seconds(
    stage: Stage, folders: Folders
) -> None:
    dropped_at = time.monotonic()
    (folders.inbox / "letters" / "a.txt").write_text(TEXT, "utf-8")
    stage.wait_for("SELECT count(*) = 2 FROM results")
    took = time.monotonic() - dropped_at

    target = folders.done / "letters" / "a.txt"
    wait_until(delivered(target), 20, "the file is delivered")
    assert took >= STABILITY_SECONDS
    assert took <= STABILITY_SECONDS + 2
    assert folders.note(target)["profile"] == "letters"
    assert str(folders.note(target)["run"]).startswith("inbox-letters-")


@pytest.mark.nightly
def test_a_renamed_file_is_analyzed_once_under_its_new_name(stage: Stage, folders: Folders) -> None:
    before = stage.count("SELECT count(*) FROM results")
    uploading = folders.inbox / "upload.txt.part"
    uploading.write_text(f"Uploaded. {TEXT}", "utf-8")
    moved = folders.inbox / "moved.txt"
    moved.write_text(f"Moved. {TEXT}", "utf-8")
    moved = moved.rename(folders.inbox / "letters" / "moved.txt")
    staged = folders.root / "staged.txt"
    staged.write_text(f"Staged. {TEXT}", "utf-8")
    staged.rename(folders.inbox / "staged.txt")
    wait_until(delivered(folders.done / "letters" / "moved.txt"), 30, "the moved file is done")
    wait_until(delivered(folders.done / "staged.txt"), 30, "the staged file is done")

    assert uploading.exists()
    uploading.rename(folders.inbox / "upload.txt")
    wait_until(delivered(folders.done / "upload.txt"), 30, "the upload is done")

    assert folders.note(folders.done / "letters" / "moved.txt")["profile"] == "letters"
    assert set(folders.hashes().values()) == {1}
    assert stage.count("SELECT count(*) FROM inbox_files") == before + 3
    assert stage.count("SELECT count(*) FROM results") == before + 3


def test_the_end_of_a_run_is_delivered_to_webhook_and_folder(
    stage: Stage, folders: Folders, receiver: WebhookReceiver
) -> None:
    document = folders.root / "bridge.txt"
    document.write_text("The bridge was opened in May. Carts crossed it.", "utf-8")
    stage.submit(str(document), "--run-name", "bridges")

    are_delivered = "SELECT count(*) = 2 AND bool_and(status = 'delivered') FROM deliveries"
    stage.wait_for(f"{are_delivered} WHERE {BRIDGES}")
    shown = stage.processes.call("runs", "bridges")

    assert sum(b'"bridges"' in request.body for request in receiver.received) == 1
    files = sorted((folders.root / "delivered").glob("bridges.*"))
    assert [path.name for path in files] == ["bridges.account.json", "bridges.csv"]
    assert len(files[1].read_text("utf-8").splitlines()) == 2
    assert "webhook of run.finished · delivered" in shown.stdout


@pytest.mark.usefixtures("folders")
def test_a_due_schedule_produces_results(stage: Stage) -> None:
    """Each letter is analyzed once, in one run; `schedules history` shows the outcome."""
    with stage.engine.begin() as connection:
        connection.exec_driver_sql(SOON)

    stage.wait_for(ENDED, 120)

    done = stage.processes.call("schedules", "history", "nightly", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = json.loads(done.stdout)["schedule_runs"]
    assert (line["status"], line["trigger"]) == ("succeeded", "clock")
    assert line["outcome"]["jobs"] == {"succeeded": LETTERS}
    assert stage.value("SELECT next_due_at > now() FROM schedules")
    assert stage.count("SELECT count(*) FROM runs WHERE schedule_run_id IS NOT NULL") == 1
    assert stage.count(f"SELECT accepted FROM run_accounts WHERE {NIGHTLY}") == LETTERS  # noqa: S608 - constants of the test
    assert stage.value(f"SELECT intakes_balance AND jobs_balance FROM run_accounts WHERE {NIGHTLY}")  # noqa: S608 - constants of the test
    assert stage.count(RESULTS) == LETTERS
    assert stage.count(RESULTS.replace("(*)", "(DISTINCT r.document_id)")) == LETTERS
    assert "Traceback" not in stage.processes.logs()
