"""Tests of budgets on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from chordwise.domain.states import JobStatus
from chordwise.errors import ExitCode, ModelRequestError
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.models.budgets import JobBudget, Reservations
from chordwise.settings import Settings
from tests.fakes.commands import output_of
from tests.fakes.pipeline import AWAY, SCRIPTED, SHORT, Pipeline, a_pipeline, a_run, a_summary

pytestmark = pytest.mark.usefixtures("addressed")


@pytest.fixture
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure the pipeline's model for the commands."""
    models = {SCRIPTED: AWAY.model_dump(mode="json", exclude_defaults=True)}
    monkeypatch.setenv("CHORDWISE_MODELS", json.dumps(models))


def a_budgeted_run(settings: Settings) -> tuple[Pipeline, Submission]:
    """Create a run that has spent a quarter of a dollar and is about to spend more."""
    pipeline = a_pipeline(settings, a_summary("The bridge was opened in May."))
    submission = pipeline.submit(SHORT, options=replace(a_run(), budget_usd=Decimal(2)))
    reservations = Reservations(settings, pipeline.context.database)
    budget = JobBudget(reservations=reservations, job_id=pipeline.job(submission).id)
    spent = budget.reserve(Decimal(1), 60)
    assert spent is not None
    budget.settle(spent, Decimal("0.25"))
    assert budget.reserve(Decimal("0.5"), 60) is not None
    pipeline.work(submission)
    return pipeline, submission


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--budget", "much"), ExitCode.USAGE, "--budget much is not an amount."),
        (("--budget", "0"), ExitCode.USAGE, "0 is not a valid budget."),
        (
            ("--budget", "1", "--model", "openai/ours"),
            ExitCode.CONFIGURATION,
            "price is unknown for openai/ours",
        ),
    ],
)
@pytest.mark.parametrize("command", ["analyze", "submit"])
def test_an_invalid_budget_is_refused_before_anything_begins(
    arguments: tuple[str, ...],
    command: str,
    code: ExitCode,
    said: str,
    tmp_path: Path,
) -> None:
    """No run is created and no service is called; the hint says what to do."""
    (tmp_path / "letter.txt").write_text(SHORT)

    error = output_of(command, "letter.txt", *arguments, code=code).err

    assert said in error
    assert "Hint:" in error
    assert "Run " not in error


def test_a_run_shows_its_budget(settings: Settings) -> None:
    """JSON has sums as numbers, and the scope contains the run's name."""
    _, submission = a_budgeted_run(settings)
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


def a_run_that_failed(settings: Settings) -> tuple[Pipeline, Submission]:
    """Create a run without a cap that cost three quarters of a dollar and has no answer."""
    pipeline = a_pipeline(
        settings, ModelRequestError("No."), a_summary("The bridge was opened in May.")
    )
    submission = pipeline.analyze(SHORT)
    assert pipeline.job(submission).status == JobStatus.FAILED
    pipeline.execute("UPDATE model_calls SET cost_usd = 0.75")
    return pipeline, submission


@pytest.mark.usefixtures("_scripted")
def test_a_budget_set_by_a_retry_includes_earlier_costs(settings: Settings) -> None:
    """The run continues within its first cap."""
    pipeline, submission = a_run_that_failed(settings)

    printed = output_of("retry", submission.name, "--budget", "2", "--no-wait", "--json").out

    assert json.loads(printed)["retried"] == 1
    assert pipeline.job(submission).status == JobStatus.QUEUED
    pipeline.work(submission)
    assert pipeline.job(submission).status == JobStatus.SUCCEEDED
    (budget,) = json.loads(output_of("runs", "latest", "--json").out)["budgets"]
    assert (budget["cap_usd"], budget["spent_usd"], budget["left_usd"]) == (2, 0.75, 1.25)


@pytest.mark.usefixtures("_scripted")
def test_a_retry_with_an_insufficient_budget_changes_nothing(settings: Settings) -> None:
    """It exits with 2 and a hint."""
    pipeline, submission = a_run_that_failed(settings)

    error = output_of(
        "retry", submission.name, "--budget", "0.5", "--no-wait", code=ExitCode.USAGE
    ).in_one_line

    assert "The run has already spent $0.75, which is more than a budget of $0.50." in error
    assert "Hint:" in error
    assert pipeline.job(submission).status == JobStatus.FAILED
    assert pipeline.value("SELECT count(*) FROM budget_accounts WHERE cap_usd IS NOT NULL") == 0


def test_a_run_without_a_budget_shows_none(settings: Settings) -> None:
    pipeline = a_pipeline(settings, a_summary("The bridge was opened in May."))
    pipeline.analyze(SHORT)

    assert "Budget" not in output_of("runs", "latest").out
