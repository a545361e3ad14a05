"""Tests of the command with its embedded stack, as a user starts it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import httpx
import psycopg
import pytest

from chordwise import Client, Profile
from chordwise.domain import json_values
from chordwise.errors import ConfigurationError, ExitCode
from chordwise.pipeline.inbox import scan
from chordwise.rendering.plain_text import PREVIEW
from tests.fakes.processes import Processes, wait_until
from tests.fakes.stacks import open_to_programs, postgres_extension_of_duckdb

pytestmark = pytest.mark.xdist_group("cli_embedded")

NOBODY = """
[worker]
processes = 1

[models.nobody]
provider = "openai"
model = "nobody"
base_url = "http://127.0.0.1:1/v1"

[models.keyless]
provider = "openai"
model = "gpt-6.1-terra"
api_key_env = "MISSING_API_KEY"
"""
KEY_VARIABLES = {"openai/gpt-6.1-terra": "OPENAI_API_KEY", "keyless": "MISSING_API_KEY"}
LETTER = (
    "The parcel arrived broken. Nobody answers the phone. Please send the money back by Monday."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A folder with documents, and the command."""

    folder: Path
    processes: Processes

    def call(self, *arguments: str, expects: ExitCode = ExitCode.SUCCESS) -> str:
        """Run a command; return its standard output."""
        done = self.processes.call(*arguments)
        assert done.returncode == expects, f"{done.returncode}: {done.stderr}{done.stdout}"
        assert "Traceback" not in done.stderr
        return done.stdout

    def talk(self, *arguments: str) -> str:
        """Run a command; return its standard error."""
        return self.processes.call(*arguments).stderr


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    """Use one home for all tests of this module; its services keep running."""
    folder = Path(tempfile.mkdtemp(prefix="cw-"))
    (folder / "letters").mkdir()
    (folder / "letters" / "one.txt").write_text(LETTER, "utf-8")
    (folder / "letters" / "empty.txt").touch()
    (folder / "chordwise.toml").write_text(NOBODY, "utf-8")
    processes = Processes(folder=folder, environment={"CHORDWISE_HOME": str(folder / "home")})
    yield Desk(folder=folder, processes=processes)
    processes.end_all()
    processes.call("down")
    shutil.rmtree(folder)


def test_analyze_answers_a_file_and_reports_an_empty_one(desk: Desk) -> None:
    """The exit code is 3, and both files are shown."""
    done = desk.processes.run("analyze", "letters", "--run-name", "first")

    shown = done.stdout
    assert done.returncode == ExitCode.INCOMPLETE, done.stderr
    assert "letters/one.txt · summary" in shown
    assert "2 found = 1 accepted + 1 empty ✓" in shown
    assert "1 planned = 1 succeeded ✓" in shown
    assert PREVIEW in shown


def test_a_missing_key_is_refused_before_anything_is_taken_in(desk: Desk) -> None:
    """Only the workers of this stack could answer, and they have its environment."""
    options = {"config": desk.folder / "chordwise.toml", "home": desk.folder / "home"}
    with Client(**options) as client:  # type: ignore[arg-type]  # each value has the type of its argument
        before = [run.name for run in client.runs()]
        for model in ("openai/gpt-6.1-terra", "keyless"):
            done = desk.processes.call("submit", "letters", "--model", model)
            with pytest.raises(ConfigurationError, match=r"key for openai/gpt-6\.1-terra"):
                client.submit(desk.folder / "letters", Profile(model=model))

            assert done.returncode == ExitCode.CONFIGURATION
            assert f"Set {KEY_VARIABLES[model]}" in done.stderr
        with pytest.raises(ConfigurationError, match="There is no API key"):
            scan.check(client._connection.settings, Profile(model="openai/gpt-6.1-terra"))
        assert [run.name for run in client.runs()] == before


def test_standard_input_is_a_document(desk: Desk) -> None:
    command = "printf '%s' 'I am happy. It works.' | \"$0\" -P -m chordwise analyze - --json"

    done = subprocess.run(
        ["/bin/sh", "-c", f"{command} -t sentiment -t summary", sys.executable],
        cwd=desk.folder,
        env=desk.processes._environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    answer = json.loads(done.stdout)
    assert done.returncode == ExitCode.SUCCESS, done.stderr
    assert {result["analysis_type"] for result in answer["results"]} == {"sentiment", "summary"}
    assert {result["source"] for result in answer["results"]} == {"stdin"}


def test_ctrl_c_detaches_and_the_run_continues(desk: Desk) -> None:
    """An unreachable provider keeps the run open; cancelling ends it, retrying reopens it.

    `submit` prints only the id on standard output.
    """
    run_id = desk.call("submit", "letters/one.txt", "--model", "nobody", "--fresh").strip()
    waiting = desk.processes.start("chordwise", "wait", run_id)
    wait_until(lambda: "0/1 documents" in desk.processes.logs(), 120, "progress is shown")

    waiting.send_signal(signal.SIGINT)

    assert waiting.wait(timeout=60) == ExitCode.DETACHED
    assert "wait --home" in desk.processes.logs()
    assert json.loads(desk.call("runs", run_id, "--json"))["run"]["status"] == "open"
    assert "1 analysis" in desk.talk("cancel", run_id)
    desk.call("wait", run_id, expects=ExitCode.INCOMPLETE)
    assert json.loads(desk.call("continue", run_id, "--no-wait", "--json"))["retried"] == 1
    desk.call("cancel", run_id)


LEASE = "Lease. The annual fee is 48,600.00 EUR. It is effective as of 1 May 2026."
OF_CATALOGUE = """
    SELECT n.nspname, c.relname, pg_catalog.obj_description(c.oid, 'pg_class')
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'f', 'm') AND n.nspname = 'answers'
        AND has_table_privilege(c.oid, 'SELECT') ORDER BY 2"""
OF_COLUMNS = """
    SELECT column_name, udt_name, pg_catalog.col_description(
        format('%I.%I', table_schema, table_name)::regclass, ordinal_position)
    FROM information_schema.columns
    WHERE table_schema = 'answers' AND table_name = 'contracts'"""


def test_other_programs_read_the_answers_by_their_recipes(desk: Desk) -> None:
    """The recipes work as printed, except that DuckDB's extension comes from a package."""
    (desk.folder / "lease.txt").write_text(LEASE, "utf-8")
    options = ("-t", "extraction", "--instructions", "annual fee, effective date")
    desk.call("analyze", "lease.txt", *options, "--save-as", "contracts")
    desk.call("export", "answers.contracts", "-o", "contracts.parquet")

    exported = duckdb.read_parquet(str(desk.folder / "contracts.parquet"))
    (document, day) = exported.project("document, effective_date").fetchall()[0]
    assert (document, str(day)) == ("lease.txt", "2026-05-01")
    with open_to_programs(desk.folder / "home") as opened:
        recipes = json_values.as_object(opened["recipes"])
        if shutil.which("psql") is not None:
            typed = ["/bin/sh", "-c", str(recipes["psql"])]
            printed = subprocess.run(typed, capture_output=True, text=True, check=True).stdout
            assert "48600.00" in printed
        for program in ("pandas", "Polars"):
            names: dict[str, object] = {}
            exec(str(recipes[program]), names)  # noqa: S102 - the recipe is Chordwise's own
            names["engine"].dispose()  # type: ignore[attr-defined]
            assert float(names["frame"]["annual_fee"][0]) == 48_600  # type: ignore[index]
        _, *statements = str(recipes["DuckDB"]).strip().split(";\n")
        with duckdb.connect() as connection:
            connection.execute(f"LOAD '{postgres_extension_of_duckdb()}'")
            *_, table = [connection.execute(line).to_arrow_table() for line in statements]
        assert table["document"].to_pylist() == ["lease.txt"]
        check_rights_and_comments(str(opened["url"]))


def check_rights_and_comments(url: str) -> None:
    """Check that a program can only read, whatever it sets, and finds tables with comments."""
    with psycopg.connect(url, autocommit=True) as login:
        login.execute("SET default_transaction_read_only = off")
        for statement in (
            "DELETE FROM facts",
            "SELECT * FROM outbox",
            "SELECT pg_read_file('/etc/hostname')",
            "SET ROLE chordwise_reader",
            "ALTER ROLE chordwise_reader SET extra_float_digits = -15",
        ):
            with pytest.raises(psycopg.Error):
                login.execute(statement.encode())
        tables = login.execute(OF_CATALOGUE.encode()).fetchall()
        columns = login.execute(OF_COLUMNS.encode()).fetchall()
    assert [row[1] for row in tables] == ["contracts", "contracts_evidence"]
    assert tables[0][2] == "The answers saved as contracts, by document."
    assert ("annual_fee", "numeric", "Asked for: annual fee") in columns


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.nightly)]
)
def test_web_serves_pages_until_it_is_stopped(desk: Desk, number: signal.Signals) -> None:
    """One server runs per home, always on the same port, and exits with success."""
    web = desk.processes.start("chordwise", "web")
    wait_until(lambda: desk.processes.call("web", "--link").returncode == 0, 60, "the pages")
    link = desk.call("web", "--link").strip()
    with httpx.stream("GET", f"{link}&", follow_redirects=True) as open_page:
        web.send_signal(number)
        status = web.wait(timeout=60)

    assert status == ExitCode.SUCCESS
    assert open_page.status_code == 200
    desk.call("web", "--link", expects=ExitCode.USAGE)
    assert link.partition("/?")[0].rpartition(":")[2] == (
        desk.folder / "home" / "web" / "port"
    ).read_text("utf-8")


def test_a_home_has_one_stack_which_can_be_stopped(desk: Desk) -> None:
    """After `down` no process is left.

    A wrong setting in the file is reported and does not prevent stopping it.
    """
    wrong = desk.folder / "wrong.toml"
    wrong.write_text("[worker]\nconcurrency = 0\n", "utf-8")
    assert json.loads(desk.call("doctor", "--json"))["exit_code"] == 0

    stopped = desk.processes.call("down", "--config", str(wrong))

    assert stopped.returncode == ExitCode.SUCCESS
    assert "worker.concurrency" in stopped.stderr
    assert "Stopped." in stopped.stderr
    assert "No services are running" in desk.talk("down")


def test_up_runs_the_stack_until_it_is_stopped(desk: Desk) -> None:
    """It adopts what a reading command has started, and is the only one for its home.

    It writes one log of all processes; SIGTERM stops them in order, with success.
    """
    desk.talk("down")
    desk.call("runs")
    before = len(desk.processes.logs())
    up = desk.processes.start("chordwise", "up")
    wait_until(lambda: "Ready." in desk.processes.logs()[before:], 60, "the stack is up")
    desk.call("analyze", "letters/one.txt", "--fresh")
    wait_until(lambda: "Web pages: http://" in desk.processes.logs()[before:], 60, "the pages")
    link = desk.call("web", "--link").strip()
    page = httpx.get(link, follow_redirects=True)
    desk.call("runs")

    up.send_signal(signal.SIGTERM)

    assert up.wait(timeout=60) == ExitCode.SUCCESS
    log = desk.processes.logs()[before:]
    assert page.status_code == 200
    assert f"Web pages: {link.partition('?')[0]}\n" in log
    assert "token=" not in log
    assert "For the link with the token to sign in: chordwise web --link" in log
    assert "worker.started" in log
    assert "Stopped." in log
    assert "No services are running" in desk.talk("down")


def test_up_is_refused_beside_another_and_ends_when_its_stack_is_stopped(desk: Desk) -> None:
    desk.talk("down")
    before = len(desk.processes.logs())
    up = desk.processes.start("chordwise", "up")
    wait_until(lambda: "Ready." in desk.processes.logs()[before:], 60, "the stack is up")

    refused = desk.processes.call("up")
    desk.talk("down")

    assert refused.returncode == ExitCode.UNAVAILABLE
    assert "Stop it with: chordwise down" in refused.stderr
    assert up.wait(timeout=60) == ExitCode.SUCCESS
    desk.call("runs")
    before = len(desk.processes.logs())
    file = desk.folder / "scheduled.toml"
    exported = "export results_by_day --output exports/{due}.xlsx"
    file.write_text(f'[schedules.days]\ncron = "0 6 * * *"\nrun = "{exported}"\n', "utf-8")
    adopting = desk.processes.start("chordwise", "up", "--config", str(file))
    wait_until(lambda: "Ready." in desk.processes.logs()[before:], 60, "the stack is up")
    assert f"folder: the folder {desk.folder / 'exports'} does not exist" in desk.processes.logs()
    desk.talk("down")
    assert adopting.wait(timeout=60) == ExitCode.SUCCESS


@pytest.mark.nightly
def test_a_copy_of_the_home_is_a_backup(desk: Desk) -> None:
    """What was analyzed after the copy is not in it, and is analyzed again."""
    home, copy = desk.folder / "home", desk.folder / "copy"
    desk.call("analyze", "letters/one.txt", "--run-name", "yesterday")
    desk.talk("down")
    subprocess.run(["/bin/cp", "-a", str(home), str(copy)], check=True)
    (desk.folder / "letters" / "two.txt").write_text(f"Again: {LETTER}", "utf-8")
    desk.call("analyze", "letters/two.txt", "--run-name", "today")
    desk.talk("down")

    shutil.rmtree(home)
    copy.rename(home)

    runs = json.loads(desk.call("runs", "--json"))["runs"]
    assert runs[0]["run"] == "yesterday"
    desk.call("analyze", "letters/two.txt", "--run-name", "today")
    assert json.loads(desk.call("runs", "--json"))["runs"][0]["run"] == "today"
