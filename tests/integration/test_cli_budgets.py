"""Tests of budgets on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from chordwise import Client, Profile
from chordwise.domain.states import JobStatus
from chordwise.errors import ExitCode, ModelRequestError, UsageError
from chordwise.pipeline.quoting import quote
from chordwise.readers.discovery import FoundFile
from chordwise.settings import Settings
from tests.fakes.commands import output_of, type_in
from tests.fakes.pipeline import AWAY, LONG, SCRIPTED, SHORT, a_pipeline, a_run, a_summary

pytestmark = pytest.mark.usefixtures("addressed")


@pytest.fixture
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure the pipeline's model for the commands."""
    models = {SCRIPTED: AWAY.model_dump(mode="json", exclude_defaults=True)}
    monkeypatch.setenv("CHORDWISE_MODELS", json.dumps(models))


def test_an_invalid_budget_is_refused_before_anything_begins(tmp_path: Path) -> None:
    """No run is created and no service is called; the hint says what to do."""
    (tmp_path / "letter.txt").write_text(SHORT)
    unpriced = ("1", "--model", "openai/ours")

    for budget, code, said in (
        (("much",), ExitCode.USAGE, "--budget much is not an amount."),
        (("0",), ExitCode.USAGE, "0 is not a valid budget."),
        (unpriced, ExitCode.CONFIGURATION, "price is unknown for openai/ours"),
    ):
        error = output_of("submit", "letter.txt", "--budget", *budget, code=code).err
        assert said in error
        assert "Hint:" in error
        assert "Run " not in error


@pytest.fixture
def expensive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[str, ...]:
    """Return the arguments of a run whose expected cost is above the limit for confirmations."""
    prices = {"input_usd_per_million_tokens": "20000", "output_usd_per_million_tokens": "20000"}
    away = AWAY.model_copy(update={"price": ""}).model_dump(mode="json", exclude_defaults=True)
    monkeypatch.setenv("CHORDWISE_MODELS", json.dumps({SCRIPTED: {**away, **prices}}))
    (tmp_path / "letter.txt").write_text(LONG)
    return "submit", "letter.txt", "--model", SCRIPTED


def runs_of(settings: Settings) -> object:
    return a_pipeline(settings).value("SELECT count(*) FROM runs")


def test_an_expensive_run_without_a_budget_needs_a_confirmation(
    settings: Settings, expensive: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal it is refused; `--yes`, a budget or a higher limit are sufficient."""
    refused = output_of(*expensive, code=ExitCode.USAGE).err
    with Client() as client:
        with pytest.raises(UsageError, match="Expected cost"):
            client.submit("letter.txt", Profile(model=SCRIPTED))
        assert runs_of(settings) == 0
        client.submit("letter.txt", Profile(model=SCRIPTED), yes=True)

    assert "above budget.confirm_usd ($20.00)" in refused
    assert "--yes" in refused
    for more in (["--yes"], ["--budget", "50"]):
        output_of(*expensive, *more)
    monkeypatch.setenv("CHORDWISE_BUDGET__CONFIRM_USD", "5000")
    output_of(*expensive)
    assert runs_of(settings) == 4


def test_an_expensive_run_is_confirmed_on_a_terminal(
    settings: Settings, expensive: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for reply, count in (("n", 0), ("", 0), ("y", 1)):
        type_in(monkeypatch, reply)

        shown = output_of(*expensive).err

        assert "Submit the run? [y/N]" in shown
        assert ("Nothing was submitted" in shown) is (count == 0)
        assert runs_of(settings) == count


def test_files_of_a_cheap_run_are_not_read_for_its_cost(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither are those of a model that costs nothing, whatever their size."""
    (tmp_path / "letter.txt").write_text(LONG)
    context = a_pipeline(settings).context
    files = [FoundFile(source="letter.txt", path=tmp_path / "letter.txt")]
    monkeypatch.setattr(quote, "Reader", lambda _: pytest.fail("a file is read"))

    assert quote.too_expensive(context, a_run(), files) == ""


def test_a_run_shows_its_budget(settings: Settings) -> None:
    """JSON has sums as numbers, and the scope contains the run's name."""
    pipeline = a_pipeline(settings, a_summary("The bridge was opened in May."))
    submission = pipeline.submit(SHORT, options=replace(a_run(), budget_usd=Decimal(2)))
    pipeline.execute("UPDATE budgets SET spent_usd = 0.25, reserved_usd = 0.5")
    pipeline.work(submission)

    shown = output_of("runs", "latest").out
    document = output_of("runs", "latest", "--json").out

    line = "$0.2500 of $2.00 spent by this run · $0.5000 reserved for calls · $1.25 left"
    assert f"Budget   {line}" in shown
    assert json.loads(document)["budgets"] == [
        {
            "scope": f"run:{submission.run_id}",
            "cap_usd": 2,
            "spent_usd": 0.25,
            "reserved_usd": 0.5,
            "left_usd": 1.25,
            "unpriced_calls": 0,
            "estimated_calls": 0,
        }
    ]


@pytest.mark.usefixtures("_scripted")
def test_a_budget_set_by_a_retry_includes_earlier_costs(settings: Settings) -> None:
    """The run continues within its first cap; one that is insufficient changes nothing."""
    answer = a_summary("The bridge was opened in May.")
    pipeline = a_pipeline(settings, ModelRequestError("No."), answer)
    submission = pipeline.analyze(SHORT)
    pipeline.execute("UPDATE model_calls SET cost_usd = 0.75")
    again = ("continue", submission.name, "--no-wait", "--budget")

    error = output_of(*again, "0.5", code=ExitCode.USAGE).in_one_line

    assert "The run has already spent $0.75, which is more than a budget of $0.50." in error
    assert "Hint:" in error
    assert pipeline.job(submission).status == JobStatus.FAILED
    assert pipeline.value("SELECT count(*) FROM budget_accounts WHERE cap_usd IS NOT NULL") == 0
    assert "Budget" not in output_of("runs", "latest").out
    assert json.loads(output_of(*again, "2", "--json").out)["retried"] == 1
    assert pipeline.job(submission).status == JobStatus.QUEUED
    pipeline.work(submission)
    assert pipeline.job(submission).status == JobStatus.SUCCEEDED
    (budget,) = json.loads(output_of("runs", "latest", "--json").out)["budgets"]
    assert (budget["cap_usd"], budget["spent_usd"], budget["left_usd"]) == (2, 0.75, 1.25)
