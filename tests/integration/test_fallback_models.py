"""A configured fallback, seen in the ledger: which model answered, and which failed and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

import pytest

from chordwise.domain.states import JobStatus
from chordwise.errors import (
    ModelAccessError,
    ModelError,
    ModelOverloadedError,
    ModelUnreachableError,
    QuotaExceededError,
)
from chordwise.llm.model import ModelProfile
from chordwise.pipeline.intake.submit import Submission
from chordwise.pipeline.models.client import Models
from chordwise.settings import ModelSettings, Settings
from tests.fakes.pipeline import SCRIPTED, Pipeline, a_pipeline, a_run, a_summary, close_all
from tests.fakes.scripted_model import Line, ScriptedModel

TEXT = "The bridge was opened in May. Carts crossed it on the same day."
SUMMARY = a_summary("The bridge was opened in May.")
SECOND = "second"
PRICED = ModelSettings(
    provider="openai",
    model=SECOND,
    base_url="https://second.example.org/v1",
    input_usd_per_million_tokens=Decimal(1),
    output_usd_per_million_tokens=Decimal(5),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A pipeline whose settings name a second model as the fallback of the first."""

    pipeline: Pipeline

    def work(self) -> Submission:
        """Analyze one document."""
        submission = self.pipeline.submit(TEXT, options=a_run())
        self.pipeline.work(submission)
        return submission

    def calls(self) -> list[tuple[object, ...]]:
        """Return who was asked, in order, and what came of it."""
        return self.pipeline.rows(
            "SELECT provider, model, error_code, valid, cost_usd > 0 AS paid"
            " FROM model_calls ORDER BY started_at"
        )


def a_pair(settings: Settings, first: Line, *second: Line) -> Pair:
    """Connect both models to a pipeline."""
    pipeline = a_pipeline(settings, first, repeat_last=True)
    of_both = pipeline.context.settings
    models = {**of_both.models, SECOND: PRICED}
    named = of_both.model_copy(update={"models": models, "fallback": (SECOND,)})
    profile = ModelProfile(
        provider="second-provider", model="second-1", context_tokens=32_768, max_output_tokens=2_048
    )
    connected = {SCRIPTED: pipeline.model, SECOND: ScriptedModel(second, profile=profile)}
    asked = Models(named, connected=connected)
    context = replace(pipeline.context, settings=named, models=asked)
    return Pair(pipeline=replace(pipeline, context=context))


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_all()


@pytest.mark.parametrize(
    "error",
    [
        ModelOverloadedError("Busy."),
        ModelUnreachableError("Nobody there."),
        QuotaExceededError("No money."),
        ModelAccessError("No such model."),
    ],
)
def test_the_ledger_says_who_failed_and_who_answered(settings: Settings, error: ModelError) -> None:
    """A row for each model that was asked, in order; only who answered has a verdict."""
    pair = a_pair(settings, error, SUMMARY)

    submission = pair.work()

    assert pair.calls() == [
        ("scripted", "script-1", error.code, None, False),
        ("second-provider", "second-1", None, True, True),
    ]
    job = pair.pipeline.job(submission)
    result = pair.pipeline.result(job.id)
    assert job.status == JobStatus.SUCCEEDED
    assert result is not None
    assert result.model == "second-1"


def test_a_fallback_is_not_asked_where_the_first_model_answers(settings: Settings) -> None:
    """One row, of the first."""
    pair = a_pair(settings, SUMMARY)

    pair.work()

    assert pair.calls() == [("scripted", "script-1", None, True, False)]


def test_answers_that_stay_invalid_stand_in_the_ledger_with_their_verdict(
    settings: Settings,
) -> None:
    """The first model was asked again and failed no request; its answers were no good."""
    pair = a_pair(settings, "This is no JSON.", SUMMARY)

    submission = pair.work()

    *before, last = pair.calls()
    assert set(before) == {("scripted", "script-1", None, False, False)}
    assert last == ("second-provider", "second-1", None, True, True)
    assert pair.pipeline.job(submission).status == JobStatus.SUCCEEDED


def test_where_all_fail_each_has_its_row(settings: Settings) -> None:
    """What the run waits for is the error of the model that may answer later."""
    pair = a_pair(settings, ModelAccessError("No such model."), ModelOverloadedError("Busy."))

    submission = pair.work()

    assert [(call[1], call[2]) for call in pair.calls()] == [
        ("script-1", "model_access"),
        ("second-1", "model_overloaded"),
    ]
    assert pair.pipeline.job(submission).status != JobStatus.SUCCEEDED
