"""The end of a job, computed from the answers of its chunks: status, losses, result."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from chordwise.domain import answers, missing_rows, trust
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import (
    AnalysisTask,
    AnalysisType,
    Stage,
    examples_from,
    options_of,
)
from chordwise.domain.json_values import JsonValue, as_json
from chordwise.domain.places import Places, located
from chordwise.domain.states import MISSING_FIELDS, MISSING_ROWS, ChunkStatus, JobStatus
from chordwise.domain.trust import Doubt
from chordwise.llm.model import EXTRACTIVE
from chordwise.pipeline.asking.assessment import AssessedAnswer
from chordwise.pipeline.asking.merge import Synthesis
from chordwise.pipeline.runtime.context import Context
from chordwise.storage import chunks
from chordwise.storage.chunk_work import JobEnd
from chordwise.storage.chunks import EndedChunk
from chordwise.storage.claims import ClaimedStep
from chordwise.storage.documents import places_of
from chordwise.storage.fan_outs import FanOut
from chordwise.storage.jobs import JobFailure
from chordwise.storage.results import NewResult, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInput:
    """What a result needs of its job: the question, and the document's text.

    `places` reads the places of the document. `wants_language_model` is false if the built-in model
    was asked for.
    """

    id: uuid.UUID
    document_id: uuid.UUID
    task: AnalysisTask
    text: str
    places: Callable[[], Places]
    wants_language_model: bool


def task_of(claimed: ClaimedStep | FanOut) -> AnalysisTask:
    """Return the task of a job, without a text."""
    return AnalysisTask(
        analysis_type=AnalysisType(claimed.analysis_type),
        stage=Stage.ANALYZE,
        options=options_of(claimed.options),
        examples=examples_from(claimed.examples or ()),
    )


def job_input(context: Context, claimed: ClaimedStep, task: AnalysisTask, text: str) -> JobInput:
    """Return the job of claimed work; the places of its document are read on demand."""
    read = partial(places_of, context.database, claimed.document_id, context.outage_timeout)
    return JobInput(
        id=claimed.job_id,
        document_id=claimed.document_id,
        task=task,
        text=text,
        places=read if claimed.has_places else Places,
        wants_language_model=not context.settings.is_built_in(claimed.model),
    )


def with_result(
    job: JobInput, parts: Sequence[EndedChunk], synthesis: Synthesis, examined: AssessedAnswer
) -> JobEnd:
    """Return the end of a job with an answer that joins those of the chunks `parts`."""
    spans = [(part.start_char, part.end_char) for part in parts]
    place = missing_rows.naming(job.places, spans)
    examined = examined.with_unread_records(job.text, job.task, _answered(parts), place)
    status, failure = _status_of(parts, synthesis, examined)
    result = NewResult.of(_result(job, parts, examined)).computed()
    return JobEnd(job_id=job.id, status=status, failure=failure, result=result)


def _answered(parts: Sequence[EndedChunk]) -> list[tuple[int, int]]:
    return [(p.start_char, p.end_char) for p in parts if p.status == ChunkStatus.SUCCEEDED]


def without_result(job_id: uuid.UUID, parts: Sequence[EndedChunk]) -> JobEnd:
    """Return the end of a job if none of its chunks has an answer."""
    status, failure = _failure_of(parts)
    return JobEnd(job_id=job_id, status=status, failure=failure)


def of_only_chunk(job: JobInput, part: EndedChunk) -> JobEnd | None:
    """Return the end of a job whose only chunk has just ended.

    `None` if its answer has to be examined first, for which a model is asked.
    """
    if part.status != ChunkStatus.SUCCEEDED:
        return without_result(job.id, [part])
    if job.task.options.critique:
        return None
    synthesis = Synthesis(answer=chunks.answer_of(part))
    return with_result(job, [part], synthesis, AssessedAnswer(answer=synthesis.answer))


_NO_CHUNKS = JobFailure(
    code="internal",
    message="The document was split into no chunks.",
    hint="This is a bug; please report it with the document's media type.",
)


def _failure_of(parts: Sequence[EndedChunk]) -> tuple[JobStatus, JobFailure]:
    """Return the failure of a job some or all of whose chunks failed: the most common reason."""
    if not parts:
        return JobStatus.FAILED, _NO_CHUNKS
    failed = [part for part in parts if part.status != ChunkStatus.SUCCEEDED]
    code, count = Counter(part.error_code for part in failed).most_common(1)[0]
    example = next(part for part in failed if part.error_code == code)
    failure = JobFailure(
        code=code or "internal",
        message=f"{_count_in_words(len(failed), len(parts), count)}{example.error_message}",
        hint=example.hint or "",
    )
    if len(failed) < len(parts):
        return JobStatus.PARTIAL, failure
    quarantined = all(part.status == ChunkStatus.QUARANTINED for part in failed)
    return (JobStatus.QUARANTINED if quarantined else JobStatus.FAILED), failure


def _count_in_words(failed: int, chunks: int, alike: int) -> str:
    """Return how many chunks failed, and how many of them for the reason that follows."""
    if chunks == 1:
        return ""
    so = "" if alike == failed else f", {alike} of them for this reason"
    return f"{failed} of {chunks} chunks failed{so}: "


def _status_of(
    parts: Sequence[EndedChunk], synthesis: Synthesis, examined: AssessedAnswer
) -> tuple[JobStatus, JobFailure | None]:
    """Return the status of a job that has a result: `partial` if anything is missing in it."""
    reasons: list[JobFailure] = []
    if any(part.status != ChunkStatus.SUCCEEDED for part in parts):
        reasons.append(_failure_of(parts)[1])
    elif synthesis.error is not None:
        error = synthesis.error
        message = f"The parts were merged by rule, since the synthesis failed: {error.what}"
        reasons.append(JobFailure(code=error.code, message=message, hint=error.hint))
    if said := examined.answer.missing_fields:
        reasons.append(JobFailure(code=MISSING_FIELDS, message=said, hint=missing_rows.RENEW))
    if lost := missing_rows.losses(examined.answer.missing_rows):
        message = " ".join(missing_rows.sentences(lost))
        hint = missing_rows.hint(lost, len(parts))
        failure = JobFailure(code=MISSING_ROWS, message=message, hint=hint)
        reasons.append(failure)
    if not reasons:
        return JobStatus.SUCCEEDED, None
    message = " ".join(reason.message for reason in reasons)
    return JobStatus.PARTIAL, replace(reasons[0], message=message)


def _result(job: JobInput, parts: Sequence[EndedChunk], examined: AssessedAnswer) -> Result:
    task, answer = job.task, examined.answer
    analysis = analysis_for(task.analysis_type)
    places = job.places()
    output = located(analysis.complete(answer.output, task.options), places)
    outputs = [part.answer for part in parts]
    confidence, counts, doubts = examined.assessment(outputs, task)
    contradictions = examined.contradictions(outputs, task)
    is_preview = EXTRACTIVE in {answer.provider, *(part.provider for part in parts)}
    if is_preview and job.wants_language_model:
        doubts = (*doubts, Doubt(sentence="The built-in model answered in place of yours."))
    covered = answers.coverage(len(job.text), _answered(parts))
    return Result(
        job_id=job.id,
        document_id=job.document_id,
        analysis_type=task.analysis_type,
        output=output,
        nothing_found=not analysis.has_findings(output),
        confidence=confidence,
        quality=answers.lowered_by(examined.quality(task), covered),
        coverage=covered * missing_rows.share(answer.missing_rows),
        agreement=answer.agreement,
        critique=examined.critique.to_json() if examined.critique else None,
        needs_review=any(doubt.sentence for doubt in doubts),
        review_reason=" ".join(filter(None, (doubt.sentence for doubt in doubts))) or None,
        doubts=trust.by_path(doubts, output, task.analysis_type) or None,
        missing_rows=as_json(answer.missing_rows),
        row_counts=counts,
        failed_checks=as_json(examined.failed_checks(task)),
        contradictions=[located(row, places) for row in contradictions] or None,
        failed_chunks=[
            _named(p) for p in parts if p.status != ChunkStatus.SUCCEEDED or p.error_code
        ],
        provider=answer.provider,
        model=answer.model,
        language_model=not is_preview,
        prompt_version=answer.prompt_version,
    )


def _named(part: EndedChunk) -> JsonValue:
    return {
        "position": part.position,
        "start_char": part.start_char,
        "end_char": part.end_char,
        "error_code": part.error_code,
    }
