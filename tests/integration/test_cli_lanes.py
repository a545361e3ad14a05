"""Tests of the lanes on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from chordwise.settings import Settings
from chordwise.storage.database import open_engine
from tests.fakes.commands import output_of
from tests.fakes.pipeline import SHORT

pytestmark = pytest.mark.usefixtures("addressed")
MODEL = "openai/gpt-6.1-terra"
SAID = "has no Batch API; the run uses the online lane."


@pytest.fixture(autouse=True)
def _letter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Provide a document, and a key for the models of OpenAI."""
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    (tmp_path / "letter.txt").write_text(SHORT)


def lane_of_the_run(settings: Settings) -> object:
    """Return the only run's lane, and whether its job waits for batches."""
    assert settings.database_url is not None
    engine = open_engine(settings.database_url)
    query = "SELECT lane, batch_until IS NOT NULL FROM runs JOIN jobs ON run_id = runs.id"
    with engine.connect() as connection:
        lane = tuple(connection.execute(text(query)).one())
    engine.dispose()
    return lane


@pytest.mark.parametrize(
    ("model", "lane", "expected", "notices"),
    [
        ("extractive", ["--lane", "batch"], ("online", False), 1),
        (MODEL, ["--lane", "batch"], ("batch", True), 0),
        (MODEL, [], ("online", False), 0),
    ],
)
def test_a_run_waits_for_batches_where_the_model_has_them(
    settings: Settings, model: str, lane: list[str], expected: tuple[str, bool], notices: int
) -> None:
    """A model without a Batch API is asked online, with a notice."""
    printed = output_of("submit", "letter.txt", *lane, "--model", model).err

    assert printed.count(SAID) == notices
    assert lane_of_the_run(settings) == expected


@pytest.mark.parametrize(
    ("command", "lane"), [(["analyze", "--no-wait"], "online"), (["submit"], "batch")]
)
def test_a_run_with_a_budget_is_preceded_by_its_quote(command: list[str], lane: str) -> None:
    """It is printed by type and model, for the run's lane, on standard error; JSON stays valid."""
    arguments = ["letter.txt", "-t", "summary", "-t", "sentiment", "--model", MODEL, "--lane", lane]
    quoted = output_of("quote", *arguments).out

    written = output_of(*command, *arguments, "--budget", "5", "--json")

    numbers, _, rest = written.err.partition("Expected cost: ")
    header, *rows = rows_of(quoted)
    assert [row.split()[:3] for row in rows] == [
        [name, "openai/gpt-6.1-terra", lane] for name in ("summary", "sentiment")
    ]
    assert rows_of(numbers) == [header, *rows]
    assert "\nRun " in rest
    assert "Run " not in numbers
    assert json.loads(written.out)["run"] in rest


def rows_of(shown: str) -> list[str]:
    """Return the header and the rows of the table of a quote."""
    lines = shown.splitlines()
    begin = next(place for place, line in enumerate(lines) if line.startswith("Type "))
    return [line.rstrip() for line in lines[begin : begin + 3]]


def test_options_without_effect_on_the_built_in_model_are_reported() -> None:
    """The notice is printed once, on standard error, and not for a language model."""
    said = "Votes and critique have no effect on the built-in"

    first, second = (
        output_of("submit", "letter.txt", *option, "--model", model).err
        for option, model in ((("--votes", "3"), "extractive"), (("--critique",), MODEL))
    )
    third = output_of("submit", "letter.txt", "--critique", "--model", "extractive").err

    assert first.count(said) == third.count(said) == 1
    assert said not in second
