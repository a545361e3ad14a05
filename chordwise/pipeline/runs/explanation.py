"""Explanation of an answer: the prompt, completion and cost of each chunk of a job.

It includes the document, the values with their feedback, and other jobs about the document.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Text, cast, select, union_all
from sqlalchemy.orm import Session, undefer

from chordwise.domain import grounding, json_values, validation
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.analysis_tasks import (
    AnalysisTask,
    AnalysisType,
    Stage,
    options_from,
    question_of,
)
from chordwise.domain.critique import CritiqueOutcome
from chordwise.domain.grounding import Source
from chordwise.domain.identifiers import id_in
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.prompts import Prompt
from chordwise.domain.states import ChunkStatus
from chordwise.errors import ChordwiseError, InvalidAnswerError, UsageError
from chordwise.llm.middleware.cached import answer_settings, key_of
from chordwise.llm.model import ChatModel, CompletionRequest
from chordwise.pipeline.asking import Question
from chordwise.pipeline.asking.merge import Synthesizer
from chordwise.pipeline.asking.question import about_part, request_for
from chordwise.pipeline.models.model_client import Models
from chordwise.prompts import library
from chordwise.relations import results as stored_results
from chordwise.relations.relation import Row
from chordwise.relations.results import ResultSelection
from chordwise.settings import Settings
from chordwise.storage import documents, learned_examples
from chordwise.storage import feedback as stored_feedback
from chordwise.storage.cached_completions import CachedCompletion
from chordwise.storage.chunks import Chunk, EndedChunk, answer_of
from chordwise.storage.database import driver
from chordwise.storage.documents import Document
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.learned_examples import LearnedExample
from chordwise.storage.model_calls import ModelCall
from chordwise.storage.record import copied, in_ids
from chordwise.storage.results import Fact, Result
from chordwise.storage.runs import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request of the job, as recorded in the ledger."""

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
    examples: JsonValue
    error_message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedChunk:
    """A part of the document: the rendered prompt, the completion, and the answer.

    `prompt` is `None` if the template is no longer known, `completion` if it is not in the cache,
    and both if they were not requested. `samples` are the completions of all samples of a vote,
    including the first. `changes` are the paths at which the answer differs from the completion:
    repaired JSON, corrected quotes, removed values.
    """

    position: int
    start_char: int
    end_char: int
    status: str
    prompt: Prompt | None
    completion: str | None
    samples: Sequence[str | None]
    answer: JsonObject | None
    changes: Sequence[str]
    confidence: float | None
    quality: float | None
    agreement: float | None
    error_code: str | None
    error_message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedStep:
    """A question after those about the chunks: the synthesis, its critique, or its revision.

    `completion` is `None` if it is not in the cache.
    """

    stage: str
    prompt: Prompt
    completion: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedDocument:
    """A document; `source` is its first name."""

    id: uuid.UUID
    source: str
    title: str | None
    media_type: str
    character_count: int
    flags: JsonValue
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedFact:
    """A value of the answer, as in the table `facts`."""

    id: uuid.UUID
    path: str
    item: str
    value: str | None
    corrected_value: str | None
    final_value: str | None
    verdict: str | None
    confidence: float | None
    quote: str | None
    start_char: int | None
    end_char: int | None
    grounding: str | None
    value_in_quote: bool | None
    page: int | None
    place: str | None
    boxes: JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFeedback:
    """Feedback on an answer to the question, as in the table `feedback`."""

    path: str
    field: str | None
    verdict: str
    judged: JsonValue
    corrected: JsonValue
    quote: str | None
    note: str | None
    author: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownExample:
    """A learned example in the prompts of the job, and the document that it comes from."""

    id: uuid.UUID
    document_id: uuid.UUID
    source: str
    version: int
    feedback_ids: Sequence[uuid.UUID]
    text: str
    answer: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOfDocument:
    """A job about the same document; `confidence` is `None` without a result."""

    job_id: uuid.UUID
    run: str
    analysis_type: str
    model: str
    status: str
    confidence: float | None
    needs_review: bool | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A job with its document, its chunks, its calls, and its result, if any.

    Facts with a verdict come first. `revised` are the paths at which a revision differs from the
    answer before it; this is known only for a document of one chunk. `jobs` are all jobs about the
    document, including this one, newest first. `examples` are the learned examples of the job, in
    the order of the prompt. A job that reused an answer has neither chunks nor calls; the job
    `reused_from` has them.
    """

    job_id: uuid.UUID
    reused_from: uuid.UUID | None
    run: str
    analysis_type: str
    model: str
    status: str
    error_message: str | None
    hint: str | None
    options: JsonObject
    document: ExplainedDocument
    chunks: Sequence[ExplainedChunk]
    calls: Sequence[Call]
    result: Row | None
    revised: Sequence[str]
    facts: Sequence[ExplainedFact]
    remarks: Sequence[AnswerFeedback]
    examples: Sequence[ShownExample]
    jobs: Sequence[JobOfDocument]

    @property
    def cost_usd(self) -> Decimal:
        """The sum of the known costs of the calls."""
        return sum((call.cost_usd for call in self.calls if call.cost_usd is not None), Decimal(0))

    @property
    def unpriced_calls(self) -> int:
        """The number of calls with unknown cost."""
        return sum(call.cost_usd is None for call in self.calls)


def find(session: Session, name: str) -> uuid.UUID:
    """Return the job with this id, or the newest job about the document with this name.

    The name is a substring of the document's source or title, or its id. A job with a result takes
    precedence over newer jobs without.

    Raises:
        UsageError: There is none, or several documents match.
    """
    job_id = id_in(name)
    if job_id is not None and session.get(Job, job_id) is not None:
        return job_id
    statement = (
        select(Job.id, Job.document_id, Intake.source)
        .where(Intake.id == Job.intake_id, Document.id == Job.document_id)
        .where(
            Intake.source.icontains(name, autoescape=True)
            | Document.title.icontains(name, autoescape=True)
            | (cast(Document.id, Text) == name)
        )
        .outerjoin(Result, Result.job_id == Job.id)
        .order_by(Result.id.is_(None), Job.id.desc())
        .limit(_MANY)
    )
    found = session.execute(statement).all()
    documents = {document_id: source for _, document_id, source in found}
    if not found:
        raise UsageError(
            f"There is no job or document “{name}”.",
            "`chordwise results` and `chordwise runs RUN --json` have the ids of jobs.",
        )
    if len(documents) > 1:
        shown = ", ".join(sorted(documents.values())[:_MAX_SHOWN])
        raise UsageError(f"{len(documents)} documents match: {shown}.", "Give a longer name.")
    return found[0][0]


_MANY = 100
_MAX_SHOWN = 5
_SPANS = ("start_char", "end_char", "grounded", "grounding")


def explain(
    session: Session,
    settings: Settings,
    job_id: uuid.UUID,
    parts: Collection[int] | None = None,
) -> Explanation:
    """Return all stored data of a job, with the prompts of `parts`, or of all chunks."""
    job = session.get_one(Job, job_id)
    document = session.get_one(Document, job.document_id, options=[undefer(Document.text)])
    chunks = session.scalars(
        select(Chunk).where(Chunk.job_id == job_id).order_by(Chunk.position)
    ).all()
    positions = {chunk.id: chunk.position for chunk in chunks}
    found = stored_results.read(
        driver(session), ResultSelection(run_id=job.run_id, job_ids=(job_id,))
    )
    result = found[0] if found else None
    about = _Asked(session, settings, job, document.text)
    return copied(
        Explanation,
        job,
        job_id=job_id,
        run=session.get_one(Run, job.run_id).name,
        document=copied(ExplainedDocument, document),
        chunks=[
            _chunk(chunk, about if parts is None or chunk.position in parts else None)
            for chunk in chunks
        ],
        calls=list(_calls(session, job_id, positions)),
        result=result,
        revised=_revised(chunks, result),
        facts=_facts(session, job_id),
        remarks=_remarks(session, job),
        examples=_examples(session, job),
        jobs=jobs_of(session, document.id),
    )


def steps(session: Session, settings: Settings, job_id: uuid.UUID) -> Sequence[ExplainedStep]:
    """Return the questions after those about the chunks, as far as they can be reconstructed.

    If answers were joined in several levels, only the first level is returned. A critique is known
    if its draft is: the answer that was kept, or, if it was revised, the answer of the only chunk.
    """
    job = session.get_one(Job, job_id)
    content = documents.text_of(session, job.document_id)
    asked = _Asked(session, settings, job, content)
    stages = {call.stage: call.prompt_version for call in _calls(session, job_id, {})}
    chunks = session.scalars(
        select(Chunk)
        .where(Chunk.job_id == job_id, Chunk.status == ChunkStatus.SUCCEEDED)
        .order_by(Chunk.position)
    ).all()
    result = session.scalars(select(Result).where(Result.job_id == job_id)).one_or_none()
    with suppress(ChordwiseError):
        found = _later_questions(asked, chunks, result)
        asked_for = (each for each in found if each.task.stage in stages)
        shown = (asked.step(each, stages[each.task.stage]) for each in asked_for)
        return [each for each in shown if each is not None]
    return []


_OF_VIOLATION = ("principle", "path", "problem")


def _later_questions(
    asked: _Asked, chunks: Sequence[Chunk], result: Result | None
) -> Iterator[Question]:
    synthesizer = Synthesizer(document=asked.document())
    answers = [answer_of(copied(EndedChunk, each)) for each in chunks]
    joining = synthesizer.first_questions(answers)
    yield from joining
    critique = (result.critique if result else None) or {}
    if result is None or not critique or len(joining) > 1:
        return
    is_revised = critique.get("outcome") == CritiqueOutcome.REVISED
    draft = chunks[0].answer if len(chunks) == 1 else None if is_revised else result.output
    if draft is None:
        return
    if len(answers) > 1:
        question = joining[0] if joining else synthesizer.question_joining(answers)
    else:
        question = synthesizer.question_about(chunks[0].start_char, chunks[0].end_char)
    task = replace(question.task, stage=Stage.CRITIQUE, draft=draft)
    yield replace(question, task=task)
    stored = json_values.objects(critique.get("violations"))
    # PostgreSQL does not keep the order of an object's members.
    if violations := tuple({name: each.get(name) for name in _OF_VIOLATION} for each in stored):
        task = replace(task, stage=Stage.REVISE, violations=violations)
        yield replace(question, task=task)


def jobs_of(session: Session, document_id: uuid.UUID) -> Sequence[JobOfDocument]:
    """Return the jobs about a document, newest first."""
    statement = (
        select(
            Job.id.label("job_id"),
            Run.name.label("run"),
            *(Job.analysis_type, Job.model, Job.status, Job.created_at),
            *(Result.confidence, Result.needs_review),
        )
        .join(Run, Run.id == Job.run_id)
        .outerjoin(Result, Result.job_id == Job.id)
        .where(Job.document_id == document_id)
        .order_by(Job.id.desc())
        .limit(_MANY)
    )
    return [JobOfDocument(**row) for row in session.execute(statement).mappings()]


def job_of_fact(session: Session, fact_id: uuid.UUID) -> uuid.UUID | None:
    """Return the job of a fact, or `None`; a corrected or replaced result has new facts."""
    return session.scalar(select(Fact.job_id).where(Fact.id == fact_id))


def _facts(session: Session, job_id: uuid.UUID) -> Sequence[ExplainedFact]:
    statement = select(Fact).where(Fact.job_id == job_id).order_by(Fact.verdict.is_(None), Fact.id)
    return [copied(ExplainedFact, each) for each in session.scalars(statement)]


def _remarks(session: Session, job: Job) -> Sequence[AnswerFeedback]:
    """Return the feedback on all answers to the question of a job, latest first."""
    kind, question = AnalysisType(job.analysis_type), question_of(job.options)
    feedback = stored_feedback.of_documents(session, [job.document_id])
    return [
        copied(AnswerFeedback, each)
        for each in reversed(stored_feedback.applicable(feedback, kind, question))
    ]


def _examples(session: Session, job: Job) -> Sequence[ShownExample]:
    ids = _example_ids(job)
    statement = (
        select(LearnedExample, Document.source)
        .join(Document, Document.id == LearnedExample.document_id)
        .where(in_ids(LearnedExample.id, ids))
    )
    found = {
        row.id: copied(ShownExample, row, source=source)
        for row, source in session.execute(statement)
    }
    return [found[each] for each in ids if each in found]


def _example_ids(job: Job) -> list[uuid.UUID]:
    return list(map(uuid.UUID, json_values.strings(job.examples)))


def _revised(chunks: Sequence[Chunk], result: Row | None) -> Sequence[str]:
    if result is None or len(chunks) != 1 or chunks[0].answer is None or result["corrected"]:
        return []
    if (result["critique"] or {}).get("outcome") != CritiqueOutcome.REVISED:
        return []
    return _differences(chunks[0].answer, result["output"])


def _calls(session: Session, job_id: uuid.UUID, positions: dict[uuid.UUID, int]) -> Iterator[Call]:
    """Yield the calls of a job, and those that transcribed its document's pages in its run."""
    of_intake = (
        select(ModelCall.id)
        .join(Job, Job.run_id == ModelCall.run_id)
        .join(Intake, Intake.id == Job.intake_id)
        .where(Job.id == job_id, ModelCall.source == Intake.source)
    )
    of_job = select(ModelCall.id).where(ModelCall.job_id == job_id)
    ids = union_all(of_intake, of_job).scalar_subquery()
    made = select(ModelCall).where(ModelCall.id.in_(ids)).order_by(ModelCall.id)
    for call in session.scalars(made):
        chunk = positions.get(call.chunk_id) if call.chunk_id is not None else None
        yield copied(Call, call, chunk=chunk)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The data from which the questions about the chunks of a job are rendered."""

    session: Session
    settings: Settings
    job: Job
    text: str

    @property
    def task(self) -> AnalysisTask:
        """The task of the job, without examples and a text."""
        return AnalysisTask(
            analysis_type=AnalysisType(self.job.analysis_type),
            stage=Stage.ANALYZE,
            options=options_from(self.job.options),
        )

    def model(self) -> ChatModel:
        """Return the model of the job; raises a `ConfigurationError` if it is unknown here."""
        return Models(self.settings).open(self.job.model)

    def request(self, chunk: Chunk) -> CompletionRequest | None:
        """Return the request about a chunk; `None` if its template or its model is unknown here."""
        ids = _example_ids(self.job)
        shown = learned_examples.named(self.session, ids) if ids else ()
        asked = replace(self.task, examples=shown)
        task, _ = about_part(asked, self.text, chunk.start_char, chunk.end_char)
        template = library.with_version(
            chunk.prompt_version or library.template_for(task).version, task
        )
        with suppress(ChordwiseError):
            if template is not None:
                return request_for(self.model(), task, template)
        return None

    def document(self) -> Question:
        """Return the question about the whole document, from which other questions are derived.

        Raises:
            ConfigurationError: The model is unknown here.
        """
        return Question(model=self.model(), task=self.task, source=Source(self.text))

    def step(self, question: Question, version: str) -> ExplainedStep | None:
        """Return a question as it was asked; `None` if its template is unknown here."""
        template = library.with_version(version, question.task)
        if template is None:
            return None
        request = request_for(question.model, question.task, template)
        return ExplainedStep(
            stage=question.task.stage,
            prompt=Prompt(system=request.system, user=request.user),
            completion=self.completion(request),
        )

    def completion(self, request: CompletionRequest) -> str | None:
        """Return the text of the completion, or `None` if it is not in the cache."""
        with suppress(ChordwiseError):
            for name in self.settings.selected_names(self.job.model):
                key = key_of(request, answer_settings(self.settings.model_named(name)))
                kept = self.session.get(CachedCompletion, key)
                if kept is not None and kept.completion is not None:
                    return json_values.text(kept.completion.get("text"))
        return None

    def samples(self, request: CompletionRequest) -> list[str | None]:
        """Return the completion of each sample of a vote; an empty list without votes."""
        votes = request.task.options.votes
        numbers = range(1, votes + 1) if votes > 1 else ()
        tasks = [replace(request.task, sample=number) for number in numbers]
        return [self.completion(replace(request, task=task)) for task in tasks]


def _chunk(chunk: Chunk, asked: _Asked | None) -> ExplainedChunk:
    request = None if asked is None else asked.request(chunk)
    completion = prompt = None
    samples: list[str | None] = []
    changes: list[str] = []
    if asked is not None and request is not None:
        completion, samples = asked.completion(request), asked.samples(request)
        prompt = Prompt(system=request.system, user=request.user)
        changes = _changes(AnalysisType(asked.job.analysis_type), completion, chunk.answer)
    known = {"prompt": prompt, "completion": completion, "samples": samples, "changes": changes}
    return copied(ExplainedChunk, chunk, **known)


def _changes(kind: AnalysisType, completion: str | None, answer: JsonObject | None) -> list[str]:
    """Return the paths at which an answer differs from the completion, except spans of quotes."""
    if completion is None or answer is None:
        return []
    try:
        parsed = analysis_for(kind).without_reasoning(validation.parse(completion).answer)
    except InvalidAnswerError as error:
        return [error.what]
    return _differences(parsed, answer)


def _differences(before: JsonObject, answer: JsonObject) -> list[str]:
    written = dict(json_values.walk(grounding.without_spans(before)))
    kept = dict(json_values.walk(grounding.without_spans(answer)))
    return [
        path or "/"
        for path in {**written, **kept}
        if not path.endswith(_SPANS) and _scalar(written.get(path)) != _scalar(kept.get(path))
    ]


def _scalar(value: JsonValue) -> JsonValue:
    return type(value).__name__ if isinstance(value, dict | list) else value
