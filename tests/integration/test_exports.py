"""Tests of exports: read-only role, one transaction, bounded memory."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import openpyxl
import psycopg
import pytest
from psycopg import sql
from pyarrow import parquet
from pydantic import SecretStr
from sqlalchemy import make_url

from chordwise.domain.export_formats import ExportFormat
from chordwise.errors import ExitCode, UsageError
from chordwise.pipeline.exports import selection
from chordwise.pipeline.exports.selection import Selection
from chordwise.pipeline.runs import user_sql
from chordwise.settings import Settings
from tests.fakes.commands import output_of, run
from tests.fakes.pipeline import Pipeline, a_pipeline, a_summary
from tests.fakes.processes import ROOT, completed

pytestmark = pytest.mark.usefixtures("addressed")
FORMULA = "=HYPERLINK(1)"
ROWS = 200_000
# Runs a command, and prints its peak memory in kilobytes.
MEASURED = """
import resource, sys
from chordwise.cli import application
code = application.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A database with two runs of one answer each, and the command line for it."""

    pipeline: Pipeline
    runs: tuple[str, str]
    folder: Path

    def export(self, *arguments: str) -> str:
        return output_of("export", *arguments).out

    def refusal(self, *arguments: str) -> str:
        return output_of("export", *arguments, code=ExitCode.USAGE).err


@pytest.fixture
def desk(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Desk:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CHORDWISE_BROKER_URL", "redis://localhost:1/0")
    pipeline = a_pipeline(settings, a_summary("Carts crossed", topic=FORMULA), repeat_last=True)
    first, second = (
        pipeline.analyze(f"Carts crossed the bridge in {year}.").name for year in (1901, 1902)
    )
    pipeline.execute("UPDATE intakes SET source = '=cmd|1.txt'")
    return Desk(pipeline=pipeline, runs=(first, second), folder=tmp_path)


def test_a_view_as_csv(desk: Desk) -> None:
    """Formulas are escaped unless the output is raw, also in the answer to SQL."""
    arguments = ("document_results", "--columns", "source,run")
    sql_arguments = ("sql", "--csv", 'SELECT source AS "=s" FROM intakes LIMIT 1')

    safe = list(csv.reader(io.StringIO(desk.export(*arguments))))
    raw = list(csv.reader(io.StringIO(desk.export(*arguments, "--raw"))))

    assert safe[0] == raw[0] == ["source", "run"]
    assert sorted(safe[1:]) == [["'=cmd|1.txt", name] for name in sorted(desk.runs)]
    assert sorted(raw[1:]) == [["=cmd|1.txt", name] for name in sorted(desk.runs)]
    assert output_of(*sql_arguments).out == "'=s\n'=cmd|1.txt\n"
    assert output_of(*sql_arguments, "--raw").out == "=s\n=cmd|1.txt\n"


def test_the_extension_of_the_file_decides_the_format(desk: Desk) -> None:
    for format_ in ExportFormat:
        path = desk.folder / f"answers.{format_}"

        desk.export("document_results", "--run", desk.runs[1], "-o", str(path))
        refused = desk.refusal("document_results", "-o", str(path))

        assert [row["run"] for row in rows_of(path, format_)] == [desk.runs[1]]
        assert "already" in refused
        desk.export("document_results", "-o", str(path), "--force")
        assert len(rows_of(path, format_)) == 2


def rows_of(path: Path, format_: ExportFormat) -> list[dict[str, object]]:
    match format_:
        case ExportFormat.CSV:
            return [dict(row) for row in csv.DictReader(io.StringIO(path.read_text("utf-8")))]
        case ExportFormat.JSONL:
            return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        case ExportFormat.PARQUET:
            parquet_rows: list[dict[str, object]] = parquet.read_table(path).to_pylist()
            return parquet_rows
        case ExportFormat.XLSX:
            names, *rows = openpyxl.load_workbook(path).worksheets[0].iter_rows(values_only=True)
            return [dict(zip(map(str, names), row, strict=True)) for row in rows]


@pytest.mark.nightly
def test_every_readable_table_and_view_can_be_exported(desk: Desk, database_url: SecretStr) -> None:
    with user_sql.reader(database_url) as connection:
        names = user_sql.readable_names(connection)
    of_no_run = set()

    for name in names:
        for format_ in ExportFormat:
            desk.export(name, "-o", str(desk.folder / f"{name}.{format_}"))
        if run(["export", name, "--run", "latest"]) != ExitCode.SUCCESS:
            of_no_run.add(name)

    assert len(names) > 20
    assert {"documents", "runs", "facts", "document_results", "run_accounts"} <= {*names}
    assert {name for name in of_no_run if "run" not in name} == {
        "batches",
        "calibration_segments",
        "calibrations",
        "evaluation_measures",
        "incidents",
        "model_costs_by_day",
        "model_quality_by_day",
        "prompt_versions",
        "reliability_curve",
        "results_by_day",
        "schedules",
    }


def test_an_export_of_a_run_has_only_the_rows_of_that_run(desk: Desk) -> None:
    """JSON lines have the answers as stored."""
    for name in ("runs", "documents", "jobs", "results", "model_calls", "run_accounts"):
        (line,) = desk.export(name, "--run", desk.runs[0], "--format", "jsonl").splitlines()
        assert name != "results" or json.loads(line)["output"]["main_topic"] == FORMULA


REFUSED: list[tuple[list[str], str]] = [
    (["outbox"], "no table or view “outbox”"),
    (["runs; DROP TABLE runs"], "no table or view"),
    (["pg_authid"], "no table or view"),
    (["runs", "--columns", "name,nothing"], "no column “nothing”"),
    (["runs", "--run", "unheard-of"], "There is no run"),
    (["results_by_day", "--run", "latest"], "do not belong to runs"),
    (["runs", "-o", "runs.txt"], "is not a known format"),
    (["runs", "-o", "nowhere/runs.csv"], "no folder"),
    (["runs", "--sql", "SELECT 1"], "Give either a view or --sql"),
    ([], "Give either a view or --sql"),
    (["--sql", "DELETE FROM runs"], "Only read-only statements"),
    (["--sql", "SELECT 1; DROP TABLE runs"], "rejected"),
    (["--sql", "WITH x AS (DELETE FROM runs RETURNING 1) SELECT * FROM x"], "rejected"),
    (["--sql", "SELECT * FROM outbox"], "rejected"),
    (["--sql", "SELECT pg_read_file('/etc/hostname')"], "rejected"),
    (["--sql", "SELECT set_config('role', 'chordwise', false)"], "rejected"),
    (
        ["--sql", "SELECT 9 / (3000 - n) FROM generate_series(1, 5000) AS n", "-o", "numbers.csv"],
        "division by zero",
    ),
]


def test_an_invalid_export_is_refused(desk: Desk) -> None:
    """An error in the middle leaves no file."""
    for arguments, reason in REFUSED:
        assert reason in desk.refusal(*arguments)
        assert not [file for file in desk.folder.iterdir() if file.suffix in (".txt", ".csv")]
        assert not list(desk.folder.glob(".chordwise-*"))
        assert desk.pipeline.value("SELECT count(*) FROM runs") == 2


def test_binary_formats_are_not_written_to_a_terminal(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    desk.pipeline.execute("UPDATE intakes SET source = E'evil\\x1b[2J'")

    codes = (
        run(["export", "runs", "--format", "xlsx"]),
        run(["export", "intakes", "--columns", "source"]),
    )

    shown = capsys.readouterr()
    assert codes == (ExitCode.USAGE, ExitCode.SUCCESS)
    assert "A terminal cannot show xlsx" in shown.err
    assert "\x1b" not in shown.out


def test_a_closed_pipe_or_a_full_disk_ends_the_export(desk: Desk) -> None:
    statement = "SELECT repeat('x', 100) FROM generate_series(1, 300000)"
    command = f'{sys.executable} -m chordwise export --sql "{statement}"'

    left, full = (
        completed("bash", "-c", line, folder=desk.folder)
        for line in (
            f"({command}; echo code $? >&2) | head -n 1",
            f"{command} > /dev/full; echo code $? >&2",
        )
    )

    assert (left.stdout, left.stderr) == ("repeat\n", "code 0\n")
    assert "Standard output cannot be written to: No space left on device." in full.stderr
    assert full.stderr.endswith("code 2\n")


def test_all_rows_are_of_one_snapshot(database_url: SecretStr) -> None:
    address = make_url(database_url.get_secret_value()).set(drivername="postgresql")
    insert = sql.SQL("INSERT INTO prompt_versions VALUES ({}, 'x', 'x', 'x')")
    with psycopg.connect(address.render_as_string(hide_password=False), autocommit=True) as owner:
        for number in range(60):
            owner.execute(insert.format(f"before@{number}"))

        with selection.opened(database_url, Selection(name="prompt_versions")) as table:
            rows = list(next(table.batches))
            owner.execute(insert.format("meanwhile@1"))
            rows += [row for batch in table.batches for row in batch]

    assert len(rows) == 60
    assert not any("meanwhile@1" in row for row in rows)


def test_large_values_are_read_in_small_batches(database_url: SecretStr) -> None:
    """A statement may have no rows, and one that writes is refused."""
    statement = "SELECT repeat('x', 1000000) FROM generate_series(1, 60)"

    with selection.opened(database_url, statement) as table:
        counts = [len(batch) for batch in table.batches]

    assert sum(counts) == 60
    assert max(counts[1:]) <= 4
    with selection.opened(database_url, "SELECT 1 AS x, 'a%sb' AS y LIMIT 0") as table:
        assert (table.names, list(table.batches)) == (["x", "y"], [])
    with pytest.raises(UsageError), selection.opened(database_url, "TRUNCATE runs"):
        pytest.fail("it was opened")


@pytest.mark.nightly
@pytest.mark.parametrize("format_", ExportFormat)
def test_memory_is_bounded(desk: Desk, format_: ExportFormat) -> None:
    few, many = (memory(desk, format_, rows) for rows in (ROWS // 100, ROWS))

    assert (desk.folder / f"{ROWS}.{format_}").stat().st_size > 1_000_000
    assert many < 1.5 * few


def memory(desk: Desk, format_: ExportFormat, rows: int) -> int:
    texts = "md5(n::text) || repeat(md5((n + 1)::text), 31)"
    statement = f"SELECT n, {texts} AS text FROM generate_series(1, {rows}) AS n"  # noqa: S608
    path = desk.folder / f"{rows}.{format_}"
    command = [MEASURED, "export", "--sql", statement, "-o", str(path)]
    done = completed(sys.executable, "-c", *command)
    assert done.returncode == ExitCode.SUCCESS, done.stderr
    return int(done.stdout)
