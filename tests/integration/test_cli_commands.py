"""Tests of the commands that show stored runs, with a real database and no processes."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import sys
import termios
import threading
import unicodedata
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from chordwise.domain.states import IntakeOutcome, JobStatus, RunStatus
from chordwise.errors import ExitCode, ModelRequestError, ReadError, ServiceUnavailableError
from chordwise.pipeline.intake.submit import Submission, open_run
from chordwise.readers.reader import UnreadDocument
from chordwise.relations import progress
from chordwise.relations.relation import Row
from chordwise.rendering.live import ProgressLines
from chordwise.rendering.run_waits import RunWatch
from chordwise.settings import Settings
from chordwise.storage.database import driver, open_engine
from tests.fakes.commands import called, output_of, run
from tests.fakes.pipeline import NOW, SHORT, Pipeline, a_document, a_pipeline, a_run, a_summary

ANSWER = a_summary("The bridge was opened in May.", topic="A [bold]bridge[/bold]")
HOSTILE = "evil\x1b[2J.txt"
pytestmark = pytest.mark.usefixtures("desk")


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A database with one run: one answer, one failure, and one unreadable file."""

    pipeline: Pipeline
    submission: Submission


@pytest.fixture
def desk(settings: Settings, addressed: None) -> Desk:
    assert addressed is None
    failing = ModelRequestError("The model does not like it.", "Ask otherwise.")
    pipeline = a_pipeline(settings, ANSWER, failing)
    locked = ReadError("evil.txt is locked.", "Unlock it.", IntakeOutcome.ENCRYPTED, "password")
    submission = pipeline.analyze(
        a_document(SHORT, "bridge.txt"),
        a_document(f"{SHORT} Or not.", "odd.txt"),
        UnreadDocument(source=HOSTILE, error=locked),
    )
    return Desk(pipeline=pipeline, submission=submission)


def test_runs_lists_runs_and_shows_both_lines_of_an_account(desk: Desk) -> None:
    """The lines balance, failures have hints, and JSON has every state, also those of no job."""
    listed, shown = output_of("runs").out, output_of("runs", "latest").out

    assert [word for word in (desk.submission.name, "finished", "1/2") if word not in listed] == []
    assert "3 found = 2 accepted + 1 encrypted ✓" in shown
    assert "2 planned = 1 succeeded + 1 failed ✓" in shown
    assert "Unlock it." in shown
    assert "Ask otherwise." in shown
    assert "\x1b" not in shown
    for name in (desk.submission.name, str(desk.submission.run_id), "latest"):
        told = json.loads(output_of("runs", name, "--json").out)
        account = told["run"]
        assert (told["schema_version"], account["run_id"]) == (1, str(desk.submission.run_id))
        assert (account["outcomes"]["encrypted"], account["intakes_balance"]) == (1, True)
        assert set(account["states"]) == {status.value for status in JobStatus}
        assert [job["status"] for job in told["jobs"]] == ["succeeded", "failed"]
        assert {failure["what"] for failure in told["failures"]} == {"intake", "job"}
        assert told["usage"]["total"] == 2
    for command in (("runs", "nope"), ("results", "--run", "nope")):
        assert "There is no run “nope”." in output_of(*command, code=ExitCode.USAGE).err


def test_results_are_shown_as_readable_text(desk: Desk) -> None:
    """The answer is shown with its quote and place; markup in it is plain text.

    Filters are run, type, and a part of the name; no match is reported and is no error.
    A later run reuses the answer about the same document: without a run it is listed once.
    """
    shown = output_of("results", "--run", desk.submission.name).out
    nothing = output_of("results", "--type", "sentiment")
    by_name, by_wildcard = listed("--document", "BRIDGE"), listed("--document", "%")
    later = desk.pipeline.submit(a_document(SHORT, "bridge.txt"))

    assert "bridge.txt · summary" in shown
    assert "A [bold]bridge[/bold]" in shown
    assert "“The bridge was opened in May.” [0–29]" in shown
    assert [result["source"] for result in by_name] == ["bridge.txt"]
    assert by_wildcard == []
    assert nothing.out == ""
    assert "No results match" in nothing.err
    assert [(result["run"], result["reused"]) for result in listed()] == [(later.name, True)]
    (first,) = listed("--run", desk.submission.name)
    assert first["run"] == desk.submission.name


def listed(*options: str) -> list[Row]:
    output = json.loads(output_of("results", "--json", *options).out)
    assert output["total"] == len(output["results"])
    results: list[Row] = output["results"]
    return results


def test_sql_as_csv_json_and_table() -> None:
    statement = "SELECT source, outcome, NULL AS nothing FROM intakes ORDER BY outcome, source"

    as_csv = output_of("sql", "--csv", statement)
    as_json = json.loads(output_of("sql", "--json", statement).out)
    as_table = output_of("sql", statement)

    rows = list(csv.reader(io.StringIO(as_csv.out)))
    assert rows[0] == ["source", "outcome", "nothing"]
    assert ["bridge.txt", "accepted", ""] in rows
    assert as_json["columns"] == ["source", "outcome", "nothing"]
    assert as_json["rows"][0] == {"source": "bridge.txt", "outcome": "accepted", "nothing": None}
    assert "∅" in as_table.out


NASTY = "SELECT U&'a\\001B[2Jb\\0007c\\009Dd\\000De\\202Ef' AS text"
SHOWN = "a\\u001b[2Jb\\u0007c\\u009dd\\u000de\\u202ef"


def on_terminal(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a command whose output is a real terminal; return what the terminal received."""
    ours, theirs = pty.openpty()
    attributes = termios.tcgetattr(theirs)
    attributes[1] &= ~termios.OPOST  # output arrives unchanged
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    received = bytearray()

    def receive() -> None:
        with suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 65_536):
                received.extend(piece)

    reader = threading.Thread(target=receive)
    reader.start()
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setenv("TERM", "dumb")  # no styling: what remains is the document's
        assert run(arguments) == ExitCode.SUCCESS
    reader.join()
    os.close(ours)
    return received.decode()


def test_csv_on_a_terminal_is_escaped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a file or a pipe the text is as stored."""
    for arguments in (("sql", "--csv", NASTY), ("export", "--sql", NASTY, "-o", "-")):
        shown = on_terminal(arguments, monkeypatch)
        redirected = called(arguments, {}, tmp_path).stdout

        assert SHOWN in shown
        assert "a\x1b[2Jb\x07c\x9dd\re\u202ef" in redirected


PRINTING: list[tuple[str, ...]] = [
    ("sql", NASTY),
    ("sql", "--json", NASTY),
    ("sql", "SELECT source FROM intakes"),
    ("export", "--sql", NASTY, "--format", "jsonl", "-o", "-"),
    ("runs", "latest"),
    ("runs", "latest", "--json"),
    ("results",),
]


def test_no_output_contains_control_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of documents, names and answers, only line ends remain unescaped."""
    for arguments in PRINTING:
        shown = on_terminal(arguments, monkeypatch)

        assert shown.strip()
        assert [c for c in shown if unicodedata.category(c) in {"Cc", "Cf"} and c != "\n"] == []


def test_a_long_table_is_truncated_with_a_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal shows a hundred rows, a file receives all; a wide table has a line per column.

    PostgreSQL's own error is shown.
    """
    monkeypatch.setenv("COLUMNS", "80")
    statement = "SELECT generate_series(1, 500) AS n"

    table, rows = output_of("sql", statement), output_of("sql", "--csv", statement)
    wide = output_of("sql", "SELECT * FROM document_results", "--limit", "1").out
    refused = output_of("sql", "SELECT * FROM outbox", code=ExitCode.USAGE)

    assert (len(table.out.splitlines()), len(rows.out.splitlines())) == (101, 501)
    assert "first 100 rows" in table.err
    assert re.search(r"^source +\| bridge.txt +$", wide, re.MULTILINE)
    assert re.search(r"^prompt_version +\| summary.analyze@\d +$", wide, re.MULTILINE)
    assert refused.out == ""
    assert "permission denied" in refused.err


def test_an_unmigrated_database_names_the_migration_command(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, database_url: SecretStr
) -> None:
    """The exit code is that of a configuration error; a repeated migration changes nothing."""
    versions = json.loads(output_of("migrate", "--json").out)
    assert versions["before"] == versions["after"]
    desk.pipeline.execute("DROP VIEW stale_results")
    desk.pipeline.execute("DELETE FROM alembic_version")
    monkeypatch.setenv("CHORDWISE_DATABASE_URL", database_url.get_secret_value())

    assert "chordwise migrate" in output_of("runs", code=ExitCode.CONFIGURATION).err


def test_doctor_checks_every_component() -> None:
    """All pass except the processes: that no worker runs is a warning."""
    report = json.loads(output_of("doctor", "--ask", "--json").out)

    verdicts = {check["name"]: check["status"] for check in report["checks"]}
    well = ("settings", "limits", "database", "schema", "clock", "reader", "broker", "question")
    assert {name: verdicts[name] for name in well} == dict.fromkeys(well, "ok")
    assert verdicts["processes"] == "warn"
    assert report["exit_code"] == 0


def test_doctor_reports_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing key is a configuration error, an unreachable broker an unavailable service."""
    monkeypatch.setenv("CHORDWISE_BROKER_URL", "redis://127.0.0.1:1/0")
    without_broker = output_of("doctor", code=ExitCode.UNAVAILABLE)
    monkeypatch.setenv("CHORDWISE_MODEL", "openai/some-model")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    without_key = output_of("doctor", code=ExitCode.CONFIGURATION)

    assert "FAIL" in without_broker.out
    assert "OPENAI_API_KEY" in without_key.out


def test_the_progress_of_a_run_adds_up(desk: Desk) -> None:
    """It has documents, chunks, calls and tokens, as the display shows them."""
    with desk.pipeline.context.database.read() as session:
        state = progress.read(driver(session), desk.submission.run_id)

    assert state.status is RunStatus.FINISHED
    assert state.is_over
    assert (state.jobs.documents, state.jobs.documents_done) == (2, 2)
    assert (state.jobs.succeeded, state.jobs.failed) == (1, 1)
    assert (state.chunks, state.chunks_done) == (2, 2)
    assert state.calls.total == 2
    assert state.calls.extractive == 0


def test_the_cause_of_a_delay_is_shown_during_the_run(desk: Desk) -> None:
    """An unreachable server is reported before it times out; an answer ends the report."""
    desk.pipeline.execute("UPDATE runs SET status = 'open'")
    newest = "(SELECT id FROM model_calls ORDER BY finished_at DESC LIMIT 1)"
    failed = "error_code = 'model_transport', error_message = 'It cannot be reached.'"
    desk.pipeline.execute(f"UPDATE model_calls SET {failed} WHERE id = {newest}")  # noqa: S608
    held_up = output_of("runs", "latest")
    desk.pipeline.execute(
        f"UPDATE model_calls SET error_code = NULL WHERE id = {newest}"  # noqa: S608 - as above
    )
    going_on = output_of("runs", "latest")

    assert "the last call failed: It cannot be reached." in held_up.out
    assert "the last call failed" not in going_on.out


def test_a_wait_ends_with_the_run(desk: Desk) -> None:
    """The display is updated during the work, and the wait ends with it."""
    waiting = desk.pipeline.submit(a_document(SHORT, "bridge.txt"), options=a_run(fresh=True))
    said: list[str] = []

    def cancel_meanwhile(_seconds: float) -> None:
        desk.pipeline.execute("UPDATE jobs SET status = 'cancelled' WHERE status = 'running'")
        desk.pipeline.execute("UPDATE runs SET status = 'finished'")

    context = desk.pipeline.context
    watch = RunWatch(context.settings, context.database, said.append, pause=cancel_meanwhile)
    ended = watch.wait_until_over(waiting.run_id, ProgressLines(said.append))

    assert ended.status is RunStatus.FINISHED
    assert [line.split(" · ")[0] for line in said] == ["0/1 documents", "1/1 documents"]


def test_a_wait_reports_a_lack_of_progress_once(desk: Desk) -> None:
    waiting = desk.pipeline.submit(a_document(SHORT, "bridge.txt"), options=a_run(fresh=True))
    warned: list[str] = []
    now = [0.0]

    def pass_time(_seconds: float) -> None:
        now[0] += 25
        if now[0] > 300:
            desk.pipeline.execute("UPDATE runs SET status = 'paused'")

    context, clock = desk.pipeline.context, lambda: now[0]
    watch = RunWatch(
        context.settings, context.database, warned.append, clock=clock, pause=pass_time
    )
    watch.wait_until_over(waiting.run_id, ProgressLines(lambda _line: None))

    (sentence,) = warned
    assert sentence.startswith("No progress for 60 seconds, and no worker is connected.")


def test_a_wait_reports_that_a_worker_is_running(desk: Desk) -> None:
    context = desk.pipeline.context
    waiting = open_run(context, a_run(fresh=True), NOW)
    waiting.close()
    assert context.settings.database_url is not None
    engine = open_engine(context.settings.database_url, name="chordwise worker")
    watch = RunWatch(context.settings, context.database, lambda _: None)
    with engine.connect(), context.database.read() as session:
        said = watch.diagnosis(progress.read(driver(session), waiting.run_id))
    engine.dispose()

    assert said.startswith("No progress for 60 seconds; a worker is connected.")


def test_a_wait_survives_a_short_outage_of_the_database(desk: Desk) -> None:
    now = [0.0]
    database = desk.pipeline.context.database
    away = {"database_url": SecretStr("postgresql://u:p@127.0.0.1:1/none")}
    settings = desk.pipeline.context.settings.model_copy(update=away)
    broken = a_pipeline(settings).context.database

    def pass_time(_seconds: float) -> None:
        now[0] += 25

    watch = RunWatch(settings, broken, print, clock=lambda: now[0], pause=pass_time)

    with pytest.raises(ServiceUnavailableError):
        watch.wait_until_over(uuid.uuid4(), ProgressLines(lambda _line: None))

    assert now[0] >= 60
    with database.read() as session:
        assert progress.read(driver(session), desk.submission.run_id).jobs.total == 2


def test_a_document_with_invisible_characters_needs_review(desk: Desk) -> None:
    """`results`, `runs RUN`, their JSON and SQL give the reason; so do reused results."""
    reason = "25 invisible Unicode characters were removed from the text."
    clean = a_document("The old bridge is closed.", "clean.txt")
    hiding = replace(
        clean, source="hiding.txt", content=replace(clean.content, invisible_removed=25)
    )
    pipeline = a_pipeline(desk.pipeline.context.settings, a_summary("The old bridge is closed."))
    first, second = (pipeline.analyze(document).name for document in (clean, hiding))

    shown = output_of("results", "--run", second).out
    stored = {
        name: json.loads(output_of("results", "--run", name, "--json").out)["results"][0]
        for name in (first, second)
    }
    account = output_of("runs", second).out
    notices = json.loads(output_of("runs", second, "--json").out)["notices"]
    query = "SELECT needs_review, review_reason FROM document_results WHERE needs_review"
    listed = json.loads(output_of("sql", query, "--json").out)["rows"]

    assert "needs review" in shown
    assert f"Review: {reason}" in shown
    assert (stored[second]["needs_review"], stored[second]["review_reason"]) == (True, reason)
    assert (stored[first]["needs_review"], stored[first]["review_reason"]) == (False, None)
    assert stored[second]["reused"]
    assert "! hiding.txt" in account
    assert reason in account
    assert [(notice["source"], notice["message"]) for notice in notices] == [("hiding.txt", reason)]
    assert listed == [{"needs_review": True, "review_reason": reason}]
