"""A refused key stops all runs that ask with it, and a retry of any of them asks again."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from chordwise.domain.states import JobStatus
from chordwise.errors import ModelAccessError, ModelUnreachableError, QuotaExceededError
from chordwise.pipeline.diagnosis import models
from chordwise.pipeline.diagnosis.checks import CheckStatus
from chordwise.pipeline.jobs import backoff, retry
from chordwise.settings import ModelSettings, Settings
from tests.fakes.pipeline import AWAY, PARAGRAPH, SCRIPTED, Pipeline, a_pipeline, quoting_the_text

REFUSED = ModelAccessError("The key is refused.", "Check api_key.")
REFUSED.is_about_key = True


def settings_asking(settings: Settings) -> Settings:
    """Return settings whose model is the scripted one."""
    return settings.model_copy(update={"model": SCRIPTED, "models": {SCRIPTED: AWAY}})


def standing(pipeline: Pipeline) -> list[tuple[object, ...]]:
    """Return how the jobs of all runs stand, and what they say."""
    return pipeline.rows("SELECT status, error_code, error_message, hint FROM jobs ORDER BY id")


def test_another_run_pauses_without_a_request(settings: Settings) -> None:
    """It says the same as the run that was refused, and its ledger has no row."""
    pipeline = a_pipeline(settings, REFUSED)
    pipeline.analyze(PARAGRAPH)

    pipeline.analyze(f"Another text. {PARAGRAPH}")

    paused = (JobStatus.PAUSED, "model_access", "The key is refused.", "Check api_key.")
    assert standing(pipeline) == [paused, paused]
    assert len(pipeline.model.requests) == 1
    assert pipeline.value("SELECT count(*) FROM model_calls") == 1


def test_a_retry_asks_again_and_opens_the_way_for_all(settings: Settings) -> None:
    """The retried run continues; another one needs its own retry, and a new one none."""
    pipeline = a_pipeline(settings, REFUSED, quoting_the_text, repeat_last=True)
    first = pipeline.analyze(PARAGRAPH)
    second = pipeline.analyze(f"Another text. {PARAGRAPH}")

    retry.retry(pipeline.context, first.run_id)
    pipeline.work(first)
    third = pipeline.analyze(f"A third text. {PARAGRAPH}")

    statuses = [pipeline.job(each).status for each in (first, second, third)]
    assert statuses == [JobStatus.SUCCEEDED, JobStatus.PAUSED, JobStatus.SUCCEEDED]
    retry.retry(pipeline.context, second.run_id)
    pipeline.work(second)
    assert pipeline.job(second).status == JobStatus.SUCCEEDED


def test_a_retry_in_vain_costs_one_request(settings: Settings) -> None:
    """Nothing was corrected: the run pauses again, and so does every other."""
    pipeline = a_pipeline(settings, REFUSED, repeat_last=True)
    first = pipeline.analyze(PARAGRAPH, f"Another text. {PARAGRAPH}")

    retry.retry(pipeline.context, first.run_id)
    pipeline.work(first)
    pipeline.analyze(f"A third text. {PARAGRAPH}")

    assert {row[0] for row in standing(pipeline)} == {JobStatus.PAUSED}
    assert len(pipeline.model.requests) == 2


def test_a_changed_key_asks_at_once(settings: Settings) -> None:
    """Workers with another key do not mind the pause of the old one."""
    old = a_pipeline(settings, QuotaExceededError("The money is spent."))
    old.analyze(PARAGRAPH)
    named = ModelSettings.model_validate({**AWAY.model_dump(), "api_key": SecretStr("sk-new")})
    new = a_pipeline(settings, quoting_the_text, named=named)

    submission = new.analyze(f"Another text. {PARAGRAPH}")

    assert new.job(submission).status == JobStatus.SUCCEEDED


def test_a_look_at_everything_tells_the_pause(settings: Settings) -> None:
    """It says who is not asked, for how long, and what to do; without a pause all is well."""
    pipeline = a_pipeline(settings, REFUSED)
    assert models.pauses(settings_asking(settings)).verdict is CheckStatus.OK

    pipeline.analyze(PARAGRAPH)

    found = models.pauses(settings_asking(settings))
    assert found.verdict is CheckStatus.WARN
    assert found.finding == "The key is refused. Calls of all runs are paused for 5 min."
    assert found.hint == "Check api_key. To try again now: chordwise retry RUN."


def test_a_tiny_question_is_asked_all_the_same(settings: Settings) -> None:
    """A check of the key reaches the provider in spite of the pause."""
    pipeline = a_pipeline(settings, REFUSED)
    pipeline.analyze(PARAGRAPH)

    with pytest.raises(ModelUnreachableError):
        models.question(settings_asking(settings))


def test_a_retry_succeeds_while_valkey_is_away(settings: Settings) -> None:
    """The jobs are queued; the pause ends automatically later."""
    pipeline = a_pipeline(settings, REFUSED)
    submission = pipeline.analyze(PARAGRAPH)
    away = settings.model_copy(update={"broker_url": SecretStr("redis://127.0.0.1:1/0")})

    backoff.resume(away, [SCRIPTED])

    assert retry.retry(pipeline.context, submission.run_id) == 1
