"""An interrupted intake is not certified, and is resumed without loss or repetition.

The commands read standard input in the middle of their list; a test holds them there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from chordwise.errors import ExitCode
from tests.e2e.conftest import Stage
from tests.fakes.processes import kill

FILES = ("a.txt", "b.txt", "c.txt")
HELD = "SELECT count(*) = 2 FROM intakes WHERE outcome = 'accepted'"
TAKEN = "SELECT source, outcome, coalesce(reason, '') FROM intakes ORDER BY source"
ROWS = "SELECT count(*) FROM intakes WHERE source LIKE '%rows.csv#%'"
LEFT = "SELECT intake_status = 'interrupted' FROM run_accounts"


def a_letter(name: str) -> str:
    return f"Letter {name}: the bridge was opened in May, and carts crossed it on the same day."


@pytest.fixture
def held(stage: Stage) -> Stage:
    (stage.folder / "letters").mkdir()
    for name in FILES:
        (stage.folder / "letters" / name).write_text(a_letter(name), "utf-8")
    stage.provider.delay_seconds = 0.0
    return stage


def begin(stage: Stage, *options: str) -> subprocess.Popen[bytes]:
    """Start to take in two letters, standard input and a third letter; wait before the third."""
    paths = ("letters/a.txt", "letters/b.txt", "-", "letters/c.txt")
    process = stage.processes.start(
        "chordwise", "submit", *paths, *options, "--run-name", "spring", stdin=subprocess.PIPE
    )
    stage.wait_for(HELD)
    return process


def again(stage: Stage, *options: str) -> subprocess.CompletedProcess[str]:
    paths = ("letters/a.txt", "letters/b.txt", "-", "letters/c.txt")
    return stage.processes.call("submit", *paths, "--run-name", "spring", *options)


def rows(stage: Stage, query: str) -> list[tuple[object, ...]]:
    with stage.engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def work(stage: Stage) -> None:
    stage.processes.start("scheduler")
    stage.processes.start("worker")


def test_a_killed_intake_is_not_certified(held: Stage) -> None:
    """`wait` exits with 3, and every command shows how many of the found sources were taken in."""
    work(held)
    kill(begin(held))

    waited = held.processes.call("wait", "spring")
    as_json = json.loads(held.processes.call("wait", "spring", "--json").stdout)["run"]
    listed = held.processes.call("runs")
    shown = held.processes.call("runs", "spring")

    assert waited.returncode == ExitCode.INCOMPLETE
    assert "2 of 4 taken in; 2 of 2 analyses succeeded" in waited.stderr
    assert "continue" in waited.stderr
    assert (as_json["intakes_found"], as_json["outcomes"]["not_taken"]) == (4, 2)
    assert (as_json["intakes_balance"], as_json["intake_status"]) == (False, "interrupted")
    assert (as_json["status"], as_json["finished_at"]) == ("open", None)
    assert "interrupted, 2 of 4 taken in" in listed.stdout
    assert "4 found = 2 accepted + 2 not taken ✗ interrupted, 2 of 4 taken in" in shown.stdout


@pytest.mark.nightly
def test_a_killed_intake_is_resumed_from_another_folder(held: Stage, tmp_path: Path) -> None:
    """The remaining files are found again; standard input is reported as not resumable."""
    work(held)
    kill(begin(held))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    resumed = held.processes.call("continue", "spring", folder=elsewhere)

    assert resumed.returncode == ExitCode.INCOMPLETE
    assert "cannot be read again" in resumed.stdout
    assert rows(held, TAKEN) == [
        ("letters/a.txt", "accepted", ""),
        ("letters/b.txt", "accepted", ""),
        ("letters/c.txt", "accepted", ""),
        ("stdin", "unreadable", "not_resumable"),
    ]
    held.wait_for("SELECT status = 'finished' FROM runs")
    assert held.value(
        "SELECT intakes_balance AND jobs_balance AND intakes_found = 4 FROM run_accounts"
    )
    twice = held.processes.call("continue", "spring")
    assert twice.returncode == ExitCode.INCOMPLETE
    assert "0 analyses retried" in twice.stderr


def test_ctrl_c_ends_the_intake_after_the_current_document(held: Stage) -> None:
    process = begin(held)
    process.send_signal(signal.SIGINT)
    held.wait_for("SELECT count(*) = 2 FROM intakes WHERE outcome = 'not_taken'")
    process.communicate(b"Letter from the pipe: the harbour was closed in June.", timeout=60)

    assert process.returncode == ExitCode.DETACHED
    assert "Intake interrupted: 3 of 4 taken in. Continue it with:" in held.processes.logs()
    other = again(held, "--type", "sentiment", "--text-column", "text")
    assert other.returncode == ExitCode.USAGE
    assert "A run named “spring” already exists" in other.stderr
    assert "(text_column, types)" in other.stderr
    assert held.value(LEFT) is True

    assert again(held).returncode == ExitCode.SUCCESS

    assert rows(held, TAKEN) == [
        ("letters/a.txt", "accepted", ""),
        ("letters/b.txt", "accepted", ""),
        ("letters/c.txt", "accepted", ""),
        ("stdin", "accepted", ""),
    ]
    assert held.value("SELECT intakes_balance AND jobs_balance FROM run_accounts")
    assert again(held).returncode == ExitCode.USAGE


@pytest.mark.nightly
def test_a_second_ctrl_c_stops_at_once(held: Stage) -> None:
    process = begin(held)
    process.send_signal(signal.SIGINT)
    held.wait_for("SELECT pg_sleep(0.5) IS NOT NULL")
    process.send_signal(signal.SIGINT)

    assert process.wait(60) == ExitCode.DETACHED
    assert "Intake interrupted: 2 of 4 taken in" in held.processes.logs()
    assert held.value(LEFT) is True


@pytest.mark.nightly
def test_two_processes_cannot_take_in_files_for_the_same_run(held: Stage) -> None:
    """Resuming is refused while the first process reads, by run name and by the same command."""
    process = begin(held)

    resumed, same = held.processes.call("continue", "spring"), again(held)

    assert (resumed.returncode, same.returncode) == (ExitCode.USAGE, ExitCode.USAGE)
    assert "Another process is reading the files of this run" in resumed.stderr
    assert "Another process is reading the files of this run" in same.stderr
    process.communicate(b"Letter from the pipe: the harbour was closed in June.", timeout=60)
    assert process.returncode == ExitCode.SUCCESS
    assert held.value("SELECT accepted = 4 AND intakes_balance FROM run_accounts")


def test_files_that_were_deleted_or_changed_are_recorded_on_resume(held: Stage) -> None:
    """Missing and changed files have separate reasons; the rest is taken in."""
    for name in ("d.txt", "e.txt"):
        (held.folder / "letters" / name).write_text(a_letter(name), "utf-8")
    kill(begin(held, "letters/d.txt", "letters/e.txt"))
    (held.folder / "letters" / "c.txt").unlink()
    (held.folder / "letters" / "d.txt").write_text("Another text altogether.", "utf-8")

    resumed = held.processes.call("continue", "spring", "--no-wait")

    assert resumed.returncode == ExitCode.SUCCESS, resumed.stderr
    assert rows(held, TAKEN)[2:] == [
        ("letters/c.txt", "unreadable", "not_found"),
        ("letters/d.txt", "unreadable", "changed"),
        ("letters/e.txt", "accepted", ""),
        ("stdin", "unreadable", "not_resumable"),
    ]
    assert held.value("SELECT intakes_balance AND jobs_balance FROM run_accounts")


@pytest.mark.nightly
def test_a_table_that_changed_during_its_intake_is_not_continued(held: Stage) -> None:
    """Rows that were taken in remain; the outcome of the file states their number."""
    table = held.folder / "rows.csv"
    table.write_text("text\n" + "".join(f"{a_letter(str(n))}\n" for n in range(400)), "utf-8")
    options = ("--run-name", "rows", "--text-column", "text")
    process = held.processes.start("chordwise", "submit", "rows.csv", *options)
    held.wait_for("SELECT count(*) > 20 FROM intakes WHERE source LIKE 'rows.csv#%'")
    kill(process)
    taken = held.count(ROWS)
    os.utime(table, (0, 0))

    held.processes.call("continue", "rows", "--no-wait")

    assert rows(held, "SELECT source, reason FROM intakes WHERE outcome <> 'accepted'") == [
        ("rows.csv", "changed")
    ]
    assert held.value("SELECT message FROM intakes WHERE outcome <> 'accepted'") == (
        f"rows.csv has changed since the run found it. {taken} documents of it are in the run."
    )
    assert held.value("SELECT intakes_balance AND jobs_balance FROM run_accounts")


@pytest.mark.nightly
def test_cancelling_an_interrupted_run_ends_it(held: Stage) -> None:
    """Sources that were not taken in stay counted; the run can be continued."""
    kill(begin(held))
    held.wait_for(LEFT)

    cancelled = held.processes.call("cancel", "spring")
    waited = held.processes.call("wait", "spring", "--json")
    resumed = held.processes.call("continue", "spring", "--no-wait")

    assert cancelled.returncode == ExitCode.SUCCESS
    account = json.loads(waited.stdout)["run"]
    assert waited.returncode == ExitCode.INCOMPLETE
    assert (account["status"], account["outcomes"]["not_taken"]) == ("cancelled", 2)
    assert "2 analyses retried" in resumed.stderr
    held.wait_for("SELECT intakes_balance AND jobs_balance FROM run_accounts")
