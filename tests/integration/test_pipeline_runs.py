"""What a run takes in, reuses, retries and calls off."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from chordwise.domain.states import ChunkStatus, IntakeOutcome, JobStatus
from chordwise.domain.tasks import AnalysisType
from chordwise.errors import ReadError, RunCancelledError, UsageError
from chordwise.llm.limits.permits import Priority
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.intake.submit import open_run
from chordwise.pipeline.jobs import retry
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.readers.reading import UnreadDocument
from chordwise.settings import Settings
from tests.fakes.pipeline import (
    LONG,
    NOW,
    PARAGRAPH,
    a_document,
    a_pipeline,
    a_run,
    quoting_the_text,
)


def test_nothing_comes_into_a_cancelled_run(settings: Settings) -> None:
    """Neither what can be read nor what cannot; what was not looked at is not counted."""
    pipeline = a_pipeline(settings)
    submission = open_run(pipeline.context, a_run(), NOW)
    submission.take_in(a_document(PARAGRAPH))
    retry.cancel(pipeline.context.database, submission.run_id)
    pipeline.execute("DELETE FROM outbox")

    for found in (
        a_document(f"Another text. {PARAGRAPH}"),
        UnreadDocument(source="a.pdf", error=ReadError("a.pdf is a scan.")),
    ):
        with pytest.raises(RunCancelledError, match=submission.name):
            submission.take_in(found)
    submission.close()

    assert pipeline.job(submission).status == JobStatus.CANCELLED
    assert pipeline.value("SELECT count(*) FROM intakes") == 1
    assert pipeline.value("SELECT count(*) FROM outbox") == 0
    assert pipeline.rows("SELECT intakes_found, jobs_balance FROM run_accounts") == [(1, True)]


def test_the_same_content_in_one_run_is_analyzed_once(settings: Settings) -> None:
    """The second intake points to the first one's document, and the account balances."""
    pipeline = a_pipeline(settings)
    submission = open_run(pipeline.context, a_run(), NOW)

    outcomes = [submission.take_in(a_document(PARAGRAPH)).outcome for _ in range(2)]
    submission.close()

    assert outcomes == [IntakeOutcome.ACCEPTED, IntakeOutcome.DUPLICATE]
    assert len(pipeline.jobs(submission)) == 1
    assert pipeline.value("SELECT intakes_balance AND jobs_balance FROM run_accounts")


def test_the_same_question_in_a_later_run_reuses_the_answer(settings: Settings) -> None:
    """Content and options known: the result is there at once, and no model is asked."""
    pipeline = a_pipeline(settings, quoting_the_text)
    first = pipeline.submit(PARAGRAPH)
    pipeline.work(first)

    second = pipeline.submit(PARAGRAPH)

    job = pipeline.job(second)
    assert job.status == JobStatus.SUCCEEDED
    assert job.reused_from == pipeline.job(first).id
    assert pipeline.result(job.id) is not None
    assert len(pipeline.model.requests) == 1
    assert pipeline.value("SELECT count(*) FROM runs WHERE status = 'finished'") == 2


def test_fresh_asks_again(settings: Settings) -> None:
    """With `--fresh` a stored answer does not count."""
    pipeline = a_pipeline(settings, quoting_the_text, repeat_last=True)
    pipeline.work(pipeline.submit(PARAGRAPH))

    again = pipeline.submit(PARAGRAPH, options=a_run(fresh=True))
    pipeline.work(again)

    assert pipeline.job(again).reused_from is None
    assert len(pipeline.model.requests) == 2


@pytest.mark.parametrize("nightly", [True, False])
def test_a_run_says_who_goes_first(settings: Settings, *, nightly: bool) -> None:
    """What a run is submitted with is what its calls ask for permits with."""
    pipeline = a_pipeline(settings)
    submission = pipeline.submit(PARAGRAPH, options=replace(a_run(), nightly=nightly))

    fan_out(pipeline.context, pipeline.job(submission).id)
    (chunk_id,) = pipeline.open_chunks(pipeline.job(submission).id)
    (claimed,) = pipeline.context.stores.chunks.claim([(chunk_id, uuid.uuid4())]).values()

    assert claimed.priority == (Priority.NIGHTLY if nightly else Priority.INTERACTIVE)


def test_what_cannot_be_read_is_accounted_for(settings: Settings) -> None:
    """An unreadable file is an intake with code and hint, and no job."""
    pipeline = a_pipeline(settings)
    submission = open_run(pipeline.context, a_run(), NOW)
    error = ReadError("scan.pdf is a scan.", "Run OCR.", "unreadable", "needs_ocr")

    taken = submission.take_in(UnreadDocument(source="scan.pdf", error=error))
    submission.close()

    assert taken.outcome is IntakeOutcome.UNREADABLE
    assert pipeline.value("SELECT reason FROM intakes") == "needs_ocr"
    assert pipeline.value("SELECT intakes_balance AND jobs_balance FROM run_accounts")
    assert pipeline.value("SELECT status FROM runs") == "finished"


def test_a_cancelled_run_stores_no_late_answer(settings: Settings) -> None:
    """An answer that arrives after the cancellation is dropped."""

    def cancel_meanwhile(request: CompletionRequest) -> str:
        retry.cancel(pipeline.context.database, submission.run_id)
        return quoting_the_text(request)

    pipeline = a_pipeline(settings, cancel_meanwhile)
    submission = pipeline.submit(PARAGRAPH)

    pipeline.work(submission)

    assert pipeline.job(submission).status == JobStatus.CANCELLED
    assert pipeline.value("SELECT status FROM chunks") == ChunkStatus.CANCELLED
    assert pipeline.value("SELECT status FROM runs") == "cancelled"


def test_a_retry_asks_only_what_has_not_succeeded(small_chunks: Settings) -> None:
    """A partial job asks its failed chunk again and replaces its result."""
    failing = [True]

    def fail_at_first(request: CompletionRequest) -> str:
        if request.task.text.startswith("0. ") and failing[0]:
            return "no JSON"
        return quoting_the_text(request)

    pipeline = a_pipeline(small_chunks, fail_at_first, repeat_last=True)
    submission = pipeline.submit(LONG)
    pipeline.work(submission)
    before = len(pipeline.model.requests)
    failing[0] = False

    retry.retry(pipeline.context, submission.run_id)
    pipeline.work(submission)

    assert pipeline.job(submission).status == JobStatus.SUCCEEDED
    assert len(pipeline.model.requests) == before + 2
    assert pipeline.value("SELECT count(*) FROM result_history") == 1


@pytest.mark.parametrize("name", ["latest", "", "  ", "a\nb", str(uuid.UUID(int=7))])
def test_names_that_a_command_could_not_tell_apart_are_refused(
    settings: Settings, name: str
) -> None:
    """A run's name is no id, no keyword, and printable; the empty one is made up."""
    pipeline = a_pipeline(settings)
    options = a_run(AnalysisType.SUMMARY)

    named = options.__class__(model=options.model, name=name)

    if name:
        with pytest.raises(UsageError):
            open_run(pipeline.context, named, NOW)
    else:
        assert open_run(pipeline.context, named, NOW).name.startswith("20261124-")
