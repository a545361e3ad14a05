"""Tests of runs with `auto` or a fallback: who answers, the ledger, and the savings."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr

from chordwise import errors
from chordwise.domain.analysis_tasks import AnalysisType
from chordwise.domain.states import JobStatus
from chordwise.llm.model import CompletionRequest, ModelProfile
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.runs import user_sql
from chordwise.settings import AUTO, ModelSettings, Settings, TierSettings
from tests.fakes.pipeline import (
    LONG,
    SCRIPTED,
    SHORT,
    Pipeline,
    a_pipeline,
    a_run,
    a_summary,
    quoting_the_text,
    with_models,
    with_settings,
)
from tests.fakes.scripted_model import Answer, Line, ScriptedModel

ROOT = Path(__file__).resolve().parents[2]
PRICES = {"small": "1", "large": "10"}
DOUBTFUL = "80. The harbour"


def priced_model(tier: str) -> ModelSettings:
    """Return a model priced per million tokens: a dollar if small, ten if large."""
    return ModelSettings(
        provider="openai",
        model=f"{tier}-1",
        base_url="https://models.example/v1",
        input_usd_per_million_tokens=Decimal(PRICES[tier]),
        output_usd_per_million_tokens=Decimal(PRICES[tier]),
    )


def routed(settings: Settings, small: Line, large: Line) -> Pipeline:
    plain = a_pipeline(settings)
    tiers = {
        name: ScriptedModel([line], profile=a_profile("openai", f"{name}-1"), repeat_last=True)
        for name, line in (("small", small), ("large", large))
    }
    changed = plain.context.settings.model_copy(
        update={
            "models": {name: priced_model(name) for name in tiers},
            "tiers": TierSettings(small="small", large="large"),
        }
    )
    return with_models(plain, changed, tiers)


def a_profile(provider: str, model: str) -> ModelProfile:
    return ModelProfile(
        provider=provider, model=model, context_tokens=32_768, max_output_tokens=2_048
    )


def a_routed_run(model: str = AUTO) -> RunOptions:
    return replace(a_run(AnalysisType.SUMMARY), model=model)


def unsure_of_one_part(request: CompletionRequest) -> Answer:
    if DOUBTFUL in request.task.text:
        return a_summary("The harbour of Lindau was rebuilt", confidence=2)
    return quoting_the_text(request)


def documented() -> str:
    """Return the statement of docs/models.md about tiers."""
    page = (ROOT / "docs" / "models.md").read_text("utf-8")
    block = re.search(r"```sql\n(.*?)```", page, re.DOTALL)
    assert block is not None
    return block[1]


def statistics(address: SecretStr) -> dict[str, dict[str, object]]:
    with user_sql.run_query(address, "SELECT * FROM tier_statistics") as answer:
        rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
    return {str(row["tier"]): row for row in rows}


def test_weak_chunks_go_to_the_larger_tier(small_chunks: Settings, database_url: SecretStr) -> None:
    """Each question counts once at the large tier's price, minus all that was paid.

    With an unknown price the savings are unknown; the calls are counted nevertheless.
    """
    pipeline = routed(small_chunks, unsure_of_one_part, quoting_the_text)

    job = pipeline.job(pipeline.analyze(LONG, options=a_routed_run()))

    assert (job.status, job.model) == (JobStatus.SUCCEEDED, AUTO)
    assert pipeline.result(job.id).model == "small-1"
    assert pipeline.value("SELECT count(*) FROM chunks WHERE model = 'large-1'") == 1
    assert pipeline.value("SELECT count(*) FROM model_calls WHERE tier IS NULL") == 0
    tiers = statistics(database_url)
    chunks = pipeline.value("SELECT count(*) FROM chunks")
    assert isinstance(chunks, int)
    small, large = tiers["small"], tiers["large"]
    assert (small["calls"], small["escalated_calls"]) == (chunks + 1, 0)
    assert (large["calls"], large["escalated_calls"]) == (1, 1)
    assert small["reference_cost_usd"] == 10 * _decimal(small["cost_usd"])
    assert small["saved_usd"] == 9 * _decimal(small["cost_usd"])
    assert large["reference_cost_usd"] is None
    assert large["saved_usd"] == -_decimal(large["cost_usd"])
    with user_sql.run_query(database_url, documented()) as answer:
        assert [row[1] for row in answer.rows] == ["large", "small"]
    pipeline.execute("UPDATE model_calls SET cost_usd = NULL WHERE tier = 'large'")
    unknown = statistics(database_url)
    assert [unknown[tier]["saved_usd"] for tier in ("small", "large")] == [None, None]
    assert unknown["small"]["cost_usd"] is not None
    assert [unknown[tier]["unpriced_calls"] for tier in ("small", "large")] == [0, 1]


def test_only_a_pinned_tier_is_asked(settings: Settings, database_url: SecretStr) -> None:
    pipeline = routed(settings, a_summary("The harbour of Lindau", confidence=1), quoting_the_text)

    submission = pipeline.analyze("The harbour of Lindau is old.", options=a_routed_run("small"))

    result = pipeline.result(pipeline.job(submission).id)
    assert (result.model, result.confidence) == ("small-1", 0.1)
    assert set(statistics(database_url)) == {"small"}


def test_a_tier_with_a_rejected_key_does_not_pause_the_run(settings: Settings) -> None:
    refused = errors.ModelAccessError("The key is refused.")
    half, none = (routed(settings, refused, line) for line in (quoting_the_text, refused))
    text = "The harbour of Lindau is old."

    answered = half.analyze(text, options=a_routed_run())
    paused = none.analyze(text, options=replace(a_routed_run(), fresh=True))

    assert half.job(answered).status == JobStatus.SUCCEEDED
    assert (none.job(paused).status, none.job(paused).error_code) == (
        JobStatus.PAUSED,
        "model_access",
    )


def test_other_thresholds_make_another_result(settings: Settings) -> None:
    pipeline = routed(settings, quoting_the_text, quoting_the_text)
    pipeline.analyze("The harbour of Lindau is old.", options=a_routed_run())
    stricter = with_settings(pipeline.context.settings, "routing", accept_confidence=0.65)
    other = with_models(pipeline, stricter)

    again = pipeline.submit("The harbour of Lindau is old.", options=a_routed_run())
    changed = other.submit("The harbour of Lindau is old.", options=a_routed_run())

    assert pipeline.job(again).reused_from is not None
    assert pipeline.job(changed).reused_from is None


def _decimal(value: object) -> Decimal:
    assert isinstance(value, Decimal)
    return value


SUMMARY = a_summary("The bridge was opened in May.")
SECOND = "second"
PRICED = ModelSettings(
    provider="openai",
    model=SECOND,
    base_url="https://second.example.org/v1",
    input_usd_per_million_tokens=Decimal(1),
    output_usd_per_million_tokens=Decimal(5),
)


def a_pair(settings: Settings, first: Line, *second: Line) -> Pipeline:
    """Return a pipeline whose settings name a second model as the fallback of the first."""
    pipeline = a_pipeline(settings, first, repeat_last=True)
    of_both = pipeline.context.settings
    models = {**of_both.models, SECOND: PRICED}
    changed = of_both.model_copy(update={"models": models, "fallback": (SECOND,)})
    other = ScriptedModel(second, profile=a_profile("second-provider", "second-1"))
    return with_models(pipeline, changed, {SCRIPTED: pipeline.model, SECOND: other})


def calls(pipeline: Pipeline) -> list[tuple[object, ...]]:
    return pipeline.rows(
        "SELECT provider, model, error_code, valid, cost_usd > 0 AS paid"
        " FROM model_calls ORDER BY started_at"
    )


@pytest.mark.parametrize(
    "first",
    [
        errors.ModelOverloadedError("Busy."),
        errors.ModelUnreachableError("It cannot be reached."),
        errors.QuotaExceededError("No money."),
        errors.ModelAccessError("No such model."),
        "This is no JSON.",
    ],
)
def test_the_ledger_has_every_asked_model(
    settings: Settings, first: errors.ModelError | str
) -> None:
    """Invalid answers are there as invalid."""
    pipeline = a_pair(settings, first, SUMMARY)

    job = pipeline.job(pipeline.analyze(SHORT, options=a_run()))

    *before, last = calls(pipeline)
    code, valid = (None, False) if isinstance(first, str) else (first.code, None)
    assert set(before) == {("scripted", "script-1", code, valid, False)}
    assert len(before) == 1 or valid is False
    assert last == ("second-provider", "second-1", None, True, True)
    assert job.status == JobStatus.SUCCEEDED
    assert pipeline.result(job.id).model == "second-1"


def test_a_fallback_is_not_asked_if_the_first_model_answers(settings: Settings) -> None:
    pipeline = a_pair(settings, SUMMARY)

    pipeline.analyze(SHORT, options=a_run())

    assert calls(pipeline) == [("scripted", "script-1", None, True, False)]


@pytest.mark.parametrize(("model", "review", "queued"), [("extractive", 0, 0), (SCRIPTED, 1, 1)])
def test_the_built_in_model_needs_review_only_in_place_of_a_language_model(
    settings: Settings, model: str, review: int, queued: int
) -> None:
    """Its low confidence is no reason, but that it answered in place of the requested model is."""
    plain = a_pipeline(settings, errors.ModelOverloadedError("Busy."), repeat_last=True)
    changed = plain.context.settings.model_copy(update={"fallback": ("extractive",)})
    pipeline = with_models(plain, changed, {SCRIPTED: plain.model})

    pipeline.analyze(SHORT, options=replace(a_run(), model=model))

    assert pipeline.rows("SELECT provider, needs_review::int, confidence < 0.5 FROM results") == [
        ("extractive", review, True)
    ]
    assert pipeline.rows("SELECT count(*) FROM review_queue") == [(queued,)]
