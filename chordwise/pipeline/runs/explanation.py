"""Why a job was answered as it was: what each chunk was asked, what came back, and what it cost."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from chordwise.domain import grounding, json_values, validation
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.prompting import Prompt
from chordwise.domain.tasks import AnalysisTask, AnalysisType, Stage, options_from
from chordwise.errors import ChordwiseError, InvalidAnswerError, UsageError
from chordwise.llm.middleware.cached import facts_about, key_of
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.asking.question import about_part, request_for
from chordwise.pipeline.models.client import Models
from chordwise.pipeline.runs import stored_results
from chordwise.pipeline.runs.stored_results import StoredResult, Wanted
from chordwise.prompts import library
from chordwise.settings import Settings
from chordwise.storage.cached_completions import CachedCompletion
from chordwise.storage.chunks import Chunk
from chordwise.storage.documents import Document
from chordwise.storage.jobs import Job
from chordwise.storage.model_calls import ModelCall
from chordwise.storage.record import id_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request of the job as the ledger has it."""

    chunk: int | None
    stage: str
    attempt: int
    sample: int
    provider: str
    model: str
    prompt_version: str
    started_at: datetime
    latency_ms: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    cache_hit: bool
    valid: bool | None
    error_message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedChunk:
    """A part of the document: the prompt as it was rendered, the completion, and the answer.

    `prompt` is `None` where the template is no longer known, `completion` where the cache does not
    keep it. `changes` are the places where the answer differs from what the model wrote: repaired
    JSON, quotes that were corrected, values that were dropped.
    """

    position: int
    start_char: int
    end_char: int
    status: str
    prompt: Prompt | None
    completion: str | None
    answer: JsonObject | None
    changes: Sequence[str]
    confidence: float | None
    quality: float | None
    agreement: float | None
    error_message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A job with its chunks, its calls, and its result, if there is one."""

    job_id: uuid.UUID
    analysis_type: str
    model: str
    status: str
    error_message: str | None
    options: JsonObject
    chunks: Sequence[ExplainedChunk]
    calls: Sequence[Call]
    result: StoredResult | None


def find(session: Session, name: str) -> uuid.UUID:
    """Return the job with this id, or the newest about the one document that has this in its name.

    Raises:
        UsageError: There is none, or there are several documents.
    """
    job_id = id_in(name)
    if job_id is not None and session.get(Job, job_id) is not None:
        return job_id
    found = stored_results.read(session, Wanted(document=name), limit=_MANY)
    documents = {result.document_id: result.source for result in found}
    if not found:
        raise UsageError(
            f"There is no job or document “{name}” with a result.",
            "`chordwise results` and `chordwise runs RUN --json` have the ids of jobs.",
        )
    if len(documents) > 1:
        shown = ", ".join(sorted(documents.values())[:_MAX_SHOWN])
        raise UsageError(f"{len(documents)} documents fit: {shown}.", "Give a longer part.")
    return found[0].job_id


_MANY = 100
_MAX_SHOWN = 5
_SPANS = ("start_char", "end_char", "grounded", "grounding")


def explain(session: Session, settings: Settings, job_id: uuid.UUID) -> Explanation:
    """Return all that is stored of a job, with the prompts rendered again."""
    job = session.get_one(Job, job_id)
    document = session.get_one(Document, job.document_id, options=[undefer(Document.text)])
    chunks = session.scalars(
        select(Chunk).where(Chunk.job_id == job_id).order_by(Chunk.position)
    ).all()
    positions = {chunk.id: chunk.position for chunk in chunks}
    found = stored_results.read(session, Wanted(run_id=job.run_id, job_ids=(job_id,)))
    return Explanation(
        job_id=job_id,
        analysis_type=job.analysis_type,
        model=job.model,
        status=job.status,
        error_message=job.error_message,
        options=job.options,
        chunks=[_chunk(session, settings, job, document.text, chunk) for chunk in chunks],
        calls=list(_calls(session, job_id, positions)),
        result=found[0] if found else None,
    )


def _calls(session: Session, job_id: uuid.UUID, positions: dict[uuid.UUID, int]) -> Iterator[Call]:
    made = select(ModelCall).where(ModelCall.job_id == job_id).order_by(ModelCall.id)
    for call in session.scalars(made):
        names = (name for name in Call.__dataclass_fields__ if name != "chunk")
        chunk = positions.get(call.chunk_id) if call.chunk_id is not None else None
        yield Call(chunk=chunk, **{name: getattr(call, name) for name in names})


def _chunk(
    session: Session, settings: Settings, job: Job, text: str, chunk: Chunk
) -> ExplainedChunk:
    request = _request(settings, job, text, chunk)
    completion = None if request is None else _completion(session, settings, job, request)
    prompt = None if request is None else Prompt(system=request.system, user=request.user)
    same = ("position", "start_char", "end_char", "status", "answer", "confidence", "quality")
    return ExplainedChunk(
        prompt=prompt,
        completion=completion,
        changes=_changes(AnalysisType(job.analysis_type), completion, chunk.answer),
        agreement=chunk.agreement,
        error_message=chunk.error_message,
        **{name: getattr(chunk, name) for name in same},
    )


def _request(settings: Settings, job: Job, text: str, chunk: Chunk) -> CompletionRequest | None:
    """Return the request about a chunk, where its template and its model are known here."""
    asked = AnalysisTask(
        analysis_type=AnalysisType(job.analysis_type),
        stage=Stage.ANALYZE,
        options=options_from(job.options),
    )
    task, _ = about_part(asked, text, chunk.start_char, chunk.end_char)
    template = library.with_version(
        chunk.prompt_version or library.template_for(task).version, task
    )
    with suppress(ChordwiseError):
        if template is not None:
            return request_for(Models(settings).open(job.model), task, template)
    return None


def _completion(
    session: Session, settings: Settings, job: Job, request: CompletionRequest
) -> str | None:
    with suppress(ChordwiseError):
        for name in settings.names_asked(job.model):
            key = key_of(request, facts_about(settings.model_named(name)))
            kept = session.get(CachedCompletion, key)
            if kept is not None and kept.completion is not None:
                return json_values.text(kept.completion.get("text"))
    return None


def _changes(kind: AnalysisType, completion: str | None, answer: JsonObject | None) -> list[str]:
    """Return the places where an answer differs from the completion, the spans of quotes aside."""
    if completion is None or answer is None:
        return []
    try:
        parsed = analysis_for(kind).kept(validation.parse(completion).answer)
        written = dict(json_values.walk(parsed))
    except InvalidAnswerError as error:
        return [error.what]
    kept = dict(json_values.walk(grounding.without_spans(answer)))
    return [
        path or "/"
        for path in {**written, **kept}
        if not path.endswith(_SPANS) and _scalar(written.get(path)) != _scalar(kept.get(path))
    ]


def _scalar(value: JsonValue) -> JsonValue:
    return type(value).__name__ if isinstance(value, dict | list) else value
