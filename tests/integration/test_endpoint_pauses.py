"""Tests that a rejected key pauses all runs that use it, and that a retry asks again."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from chordwise.domain.states import JobStatus
from chordwise.errors import ModelAccessError, ModelUnreachableError, QuotaExceededError
from chordwise.pipeline.diagnosis import models
from chordwise.pipeline.diagnosis.outcome import CheckStatus
from chordwise.pipeline.jobs import endpoint_pauses, run_control
from chordwise.settings import ModelSettings, Settings
from tests.fakes.pipeline import AWAY, PARAGRAPH, SCRIPTED, Pipeline, a_pipeline, quoting_the_text

REFUSED = ModelAccessError("The key is refused.", "Check api_key.")
REFUSED.is_about_key = True


def settings_asking(settings: Settings) -> Settings:
    return settings.model_copy(update={"model": SCRIPTED, "models": {SCRIPTED: AWAY}})


def job_states(pipeline: Pipeline) -> list[tuple[object, ...]]:
    return pipeline.rows("SELECT status, error_code, error_message, hint FROM jobs ORDER BY id")


def test_another_run_pauses_without_a_request(settings: Settings) -> None:
    pipeline = a_pipeline(settings, REFUSED)
    pipeline.analyze(PARAGRAPH)

    pipeline.analyze(f"Another text. {PARAGRAPH}")

    paused = (JobStatus.PAUSED, "model_access", "The key is refused.", "Check api_key.")
    assert job_states(pipeline) == [paused, paused]
    assert len(pipeline.model.requests) == 1
    assert pipeline.value("SELECT count(*) FROM model_calls") == 1


def test_a_retry_asks_again_and_ends_the_pause(settings: Settings) -> None:
    """The retried run continues; another run needs its own retry, and a new one none."""
    pipeline = a_pipeline(settings, REFUSED, quoting_the_text, repeat_last=True)
    first = pipeline.analyze(PARAGRAPH)
    second = pipeline.analyze(f"Another text. {PARAGRAPH}")

    run_control.retry(pipeline.context, first.run_id)
    pipeline.work(first)
    third = pipeline.analyze(f"A third text. {PARAGRAPH}")

    statuses = [pipeline.job(each).status for each in (first, second, third)]
    assert statuses == [JobStatus.SUCCEEDED, JobStatus.PAUSED, JobStatus.SUCCEEDED]
    run_control.retry(pipeline.context, second.run_id)
    pipeline.work(second)
    assert pipeline.job(second).status == JobStatus.SUCCEEDED


def test_an_unsuccessful_retry_costs_one_request(settings: Settings) -> None:
    pipeline = a_pipeline(settings, REFUSED, repeat_last=True)
    first = pipeline.analyze(PARAGRAPH, f"Another text. {PARAGRAPH}")

    run_control.retry(pipeline.context, first.run_id)
    pipeline.work(first)
    pipeline.analyze(f"A third text. {PARAGRAPH}")

    assert {row[0] for row in job_states(pipeline)} == {JobStatus.PAUSED}
    assert len(pipeline.model.requests) == 2


def test_a_changed_key_is_used_at_once(settings: Settings) -> None:
    old = a_pipeline(settings, QuotaExceededError("The money is spent."))
    old.analyze(PARAGRAPH)
    named = ModelSettings.model_validate({**AWAY.model_dump(), "api_key": SecretStr("sk-new")})
    new = a_pipeline(settings, quoting_the_text, named=named)

    submission = new.analyze(f"Another text. {PARAGRAPH}")

    assert new.job(submission).status == JobStatus.SUCCEEDED


def test_doctor_reports_the_pause(settings: Settings) -> None:
    pipeline = a_pipeline(settings, REFUSED)
    assert models.pauses(settings_asking(settings)).status is CheckStatus.OK

    pipeline.analyze(PARAGRAPH)

    found = models.pauses(settings_asking(settings))
    assert found.status is CheckStatus.WARN
    assert found.finding == "The key is refused. Calls of all runs are paused for 5 min."
    assert found.hint == "Check api_key. To try again now: chordwise continue RUN."


def test_the_test_question_of_doctor_ignores_the_pause(settings: Settings) -> None:
    pipeline = a_pipeline(settings, REFUSED)
    pipeline.analyze(PARAGRAPH)

    with pytest.raises(ModelUnreachableError):
        models.question(settings_asking(settings))


def test_a_retry_succeeds_while_valkey_is_unavailable(settings: Settings) -> None:
    pipeline = a_pipeline(settings, REFUSED)
    submission = pipeline.analyze(PARAGRAPH)
    away = settings.model_copy(update={"broker_url": SecretStr("redis://127.0.0.1:1/0")})

    endpoint_pauses.probe_again(away, [SCRIPTED])

    assert run_control.retry(pipeline.context, submission.run_id) == 1
