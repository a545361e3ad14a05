"""Tests that other programs can read the answers by the recipes of `chordwise connect`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb
import psycopg
import pytest

from chordwise.embedded import stack
from tests.fakes.commands import called
from tests.fakes.stacks import open_to_programs, postgres_extension_of_duckdb

pytestmark = pytest.mark.xdist_group("connect")

TEXT = "Lease. The annual fee is 48,600.00 EUR. It is effective as of 1 May 2026."
COMMAND = (sys.executable, "-m", "chordwise")
FEW = {"CHORDWISE_WORKER__PROCESSES": "1"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("connect")
    (folder / "lease.txt").write_text(TEXT, "utf-8")
    options = ("-t", "extraction", "--instructions", "annual fee, effective date")
    subprocess.run(
        [*COMMAND, "analyze", "lease.txt", *options, "--save-as", "contracts"],
        cwd=folder,
        env={**os.environ, "CHORDWISE_HOME": str(folder / "home"), **FEW},  # noqa: TID251 - of a command
        check=True,
        capture_output=True,
    )
    yield folder / "home"
    stack.stop(folder / "home")


@pytest.fixture(scope="module")
def opened(home: Path) -> Iterator[Mapping[str, object]]:
    with open_to_programs(home) as opened:
        yield opened


def recipe(opened: Mapping[str, object], name: str) -> str:
    recipes = opened["recipes"]
    assert isinstance(recipes, dict)
    return str(recipes[name])


def test_the_psql_recipe_prints_the_answers(opened: Mapping[str, object]) -> None:
    if shutil.which("psql") is None:
        pytest.skip("psql is not installed")
    typed = ["/bin/sh", "-c", recipe(opened, "psql")]
    assert "48600.00" in subprocess.run(typed, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ["pandas", "Polars"])
def test_recipes_load_the_answers_as_data_frames(opened: Mapping[str, object], name: str) -> None:
    names: dict[str, object] = {}
    exec(recipe(opened, name), names)  # noqa: S102 - the recipe is Chordwise's own
    names["engine"].dispose()  # type: ignore[attr-defined]

    assert float(names["frame"]["annual_fee"][0]) == 48_600  # type: ignore[index]


def test_duckdb_reads_an_export(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "contracts.parquet"
    exported = ("export", "answers.contracts", "-o", str(file), "--home", str(home))
    assert called(exported, {}, tmp_path).returncode == 0

    relation = duckdb.read_parquet(str(file)).project("document, effective_date")
    rows = relation.fetchall()

    assert [(document, str(day)) for document, day in rows] == [("lease.txt", "2026-05-01")]


def test_the_duckdb_recipe_reads_the_answers(opened: Mapping[str, object]) -> None:
    """The recipe works as printed, with the extension from a package instead of a download."""
    _, *statements = recipe(opened, "DuckDB").strip().split(";\n")
    with duckdb.connect() as connection:
        connection.execute(f"LOAD '{postgres_extension_of_duckdb()}'")
        *_, table = [connection.execute(statement).to_arrow_table() for statement in statements]

    assert table["document"].to_pylist() == ["lease.txt"]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM facts",
        "SELECT * FROM outbox",
        "SELECT pg_read_file('/etc/hostname')",
        "SET ROLE chordwise_reader",
        "ALTER ROLE chordwise_reader SET extra_float_digits = -15",
    ],
)
def test_programs_can_only_read(opened: Mapping[str, object], statement: str) -> None:
    """Programs have the privileges of the reader role only, whatever they set in the session."""
    with psycopg.connect(str(opened["url"]), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.Error):
            connection.execute(statement)


def test_metabase_finds_tables_and_comments(opened: Mapping[str, object]) -> None:
    tables = """
        SELECT n.nspname, c.relname, pg_catalog.obj_description(c.oid, 'pg_class')
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'f', 'm') AND n.nspname = 'answers'
            AND has_table_privilege(c.oid, 'SELECT') ORDER BY 2"""
    columns = """
        SELECT column_name, udt_name, pg_catalog.col_description(
            format('%I.%I', table_schema, table_name)::regclass, ordinal_position)
        FROM information_schema.columns
        WHERE table_schema = 'answers' AND table_name = 'contracts'"""
    with psycopg.connect(str(opened["url"])) as connection:
        rows = connection.execute(tables).fetchall()
        described = {name: (kind, said) for name, kind, said in connection.execute(columns)}

    assert [row[1] for row in rows] == ["contracts", "contracts_evidence"]
    assert rows[0][2] == "The answers saved as contracts, by document."
    assert described["annual_fee"] == ("numeric", "Asked for: annual fee")
