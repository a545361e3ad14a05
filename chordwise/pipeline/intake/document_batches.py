"""Stores a batch of documents, intakes, jobs and messages, with one statement for each kind."""

from __future__ import annotations

import uuid
from collections import Counter, deque
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Condition, Thread
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

from sqlalchemy import null
from sqlalchemy.orm import Session

from chordwise.domain import chunking, document_flags, places, text_normalization
from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType, Stage, options_to_json
from chordwise.domain.chunking import TextBudget
from chordwise.domain.json_values import as_json
from chordwise.domain.learning.learned_examples import LearnedExample
from chordwise.domain.schema_nodes import SchemaNode
from chordwise.domain.states import IntakeOutcome, JobStatus, Lane
from chordwise.errors import ConfigurationError, ReadError
from chordwise.pipeline.asking.question import text_budget
from chordwise.pipeline.intake.learned_examples import Examples
from chordwise.pipeline.intake.run_options import RunOptions, identities
from chordwise.pipeline.jobs import shared_jobs
from chordwise.pipeline.models.batch_queue import batch_until
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.messages import ANALYZE_SLICE, FAN_OUT
from chordwise.readers import failures
from chordwise.readers.reader import (
    ReadDocument,
    ReadingInterruptedError,
    ReadText,
    UnreadDocument,
)
from chordwise.settings import Settings
from chordwise.storage import chunks, clock, documents, intakes, learned_examples, outbox, results
from chordwise.storage.documents import Document
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.outbox import Urgency
from chordwise.storage.record import insert_all, new_id
from chordwise.storage.results import ResultKey
from chordwise.storage.runs import Run

MAX_DOCUMENTS = 200
MAX_ROWS, MAX_ROW_CHARACTERS = 250_000, 25_000_000
"""The limits of a table whose rows one answer lists: a worker needs about 4 kB for each row."""
_TABLES = ("/csv", "/tab-separated-values", "/x-ndjson", "excel", "spreadsheet")
MAX_BYTES = 4 * 1024 * 1024
"""The size of the texts at which a batch is full, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """One document, or unread document, to take in; its intake gets the id `intake_id`.

    `entry_id` is the intake id of the list entry that contains it, as document number `position`
    from 0; the entry is removed from the list with its last document. `name` is the name of that
    entry, `raw_path` the path of its file.
    """

    document: ReadDocument | UnreadDocument
    entry_id: uuid.UUID | None = None
    position: int = 0
    is_last: bool = True
    name: str = ""
    raw_path: bytes | None = None
    intake_id: uuid.UUID = field(default_factory=new_id)

    @property
    def byte_count(self) -> int:
        """The minimum size in memory of its text and of the layouts of its pages, in bytes."""
        if isinstance(self.document, UnreadDocument):
            return 0
        layouts = sum(len(place.layout) for place in self.document.content.places)
        return len(self.document.content.text) + layouts


ChosenExamples: TypeAlias = Mapping[tuple[str, AnalysisType], Sequence[LearnedExample]]
"""The learned examples that are shown with a document, by its hash and the analysis type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuestions:
    """What a run asks of each document; `hashes` are the identities of the results by type.

    `budgets` are the limits of the text of a chunk in tokens, by type; empty if only a worker can
    open the model. `examples` are the learned examples to choose from, by type.
    """

    run: Run
    options: RunOptions
    hashes: Mapping[AnalysisType, str]
    budgets: Mapping[AnalysisType, TextBudget]
    examples: Examples = field(default_factory=dict)

    @classmethod
    def of(cls, context: Context, run: Run, options: RunOptions) -> Self:
        """Return what a run asks with the given options.

        Raises:
            ConfigurationError: The model is unknown.
        """
        return cls(
            run=run,
            options=options,
            hashes=identities(context.settings, options),
            budgets=_text_budgets(context, options),
        )

    def fits_one_chunk(self, job: _NewJob) -> bool:
        """Return whether the document of a job fits into a single chunk with its examples."""
        budget = self.budgets.get(job.analysis_type)
        if budget is None or not job.text:
            return False
        tokens = sum(example.token_count for example in job.examples)
        return chunking.fits(job.text, budget.max_tokens - tokens, budget.rows)

    def choose_examples(self, offered: Sequence[Offered]) -> ChosenExamples:
        """Choose the learned examples for each document; the database is not changed.

        Raises:
            UnicodeError: A text cannot be stored.
        """
        if not self.examples:
            return {}
        return {
            (sha256, kind): index.select(sha256, text)
            for offer in offered
            if isinstance(offer.document, ReadDocument) and (text := offer.document.content.text)
            for sha256 in (offer.document.identity,)
            for kind, index in self.examples.items()
        }


class NewDocument(NamedTuple):
    """A document that is new to a run, with the hash that identifies it."""

    id: uuid.UUID
    text: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Documents by intake id, of which the same is asked."""

    run_questions: RunQuestions
    documents: Mapping[uuid.UUID, NewDocument]


Divide: TypeAlias = Callable[[Session, Mapping[uuid.UUID, NewDocument]], Sequence[Group]]
"""Groups the documents that are new to a run by what is asked of them."""


class _NewJob(NamedTuple):
    id: uuid.UUID
    intake_id: uuid.UUID
    question: ResultKey
    analysis_type: AnalysisType
    text: str
    examples: Sequence[LearnedExample]


def _text_budgets(context: Context, options: RunOptions) -> dict[AnalysisType, TextBudget]:
    """Return the limit of the text of a chunk in tokens, by type.

    Empty if this process cannot open the model, for example without its key; the workers then fan
    the jobs out.
    """
    chunk_tokens = context.settings.pipeline.chunk_tokens
    try:
        model = context.models.open(options.model)
        return {
            kind: text_budget(
                model,
                AnalysisTask(
                    analysis_type=kind, stage=Stage.ANALYZE, options=options.analysis_of(kind)
                ),
                chunk_tokens,
            )
            for kind in options.types
        }
    except ConfigurationError:
        return {}


def within_row_limits(
    document: ReadDocument | UnreadDocument, options: RunOptions
) -> ReadDocument | UnreadDocument:
    """Return a document, or why its rows are too many for a list in one answer."""
    if isinstance(document, UnreadDocument) or AnalysisType.EXTRACTION not in options.types:
        return document
    schema, text = options.analysis.schema, document.content.text
    is_list = schema is None or any(node.is_list for node in SchemaNode.root_of(schema).nodes())
    is_long = len(text) > MAX_ROW_CHARACTERS or text.rstrip().count("\n") > MAX_ROWS
    is_table = any(name in document.content.media_type for name in _TABLES)
    if not (is_list and is_long and is_table):
        return document
    failure = failures.too_large(
        f"has more rows than one answer may list: at most {MAX_ROWS:,} in "
        f"{MAX_ROW_CHARACTERS:,} characters.",
        "Split it, or analyze each row as a document (--text-column).",
        "too_many_rows",
    )
    error = failures.named(document.source, failure)
    return UnreadDocument(
        source=document.source, error=error, sha256=document.sha256, byte_count=document.byte_count
    )


def unstorable(offered: Offered, error: Exception) -> Offered:
    """Return what is stored instead of a document that PostgreSQL rejects."""
    document = offered.document
    sentence = str(getattr(error, "orig", error)).strip().partition("\n")[0]
    reason = failures.unreadable(
        f"has a text that cannot be stored: {sentence}.", "Report this as a bug.", "unstorable"
    )
    unread = UnreadDocument(
        source=document.source,
        error=failures.named(document.source, reason),
        sha256=document.sha256,
        byte_count=document.byte_count,
    )
    return replace(offered, document=unread)


def store(
    session: Session,
    settings: Settings,
    run_questions: RunQuestions,
    offered: Sequence[Offered],
    examples: ChosenExamples,
    divide: Divide,
) -> None:
    """Store each document with its jobs and their messages, or the reason that there is none.

    The number of statements does not depend on the number of documents.

    Raises:
        LeaseLostError: Another process has taken in the file of one of them.
    """
    options = run_questions.options
    offered = [
        replace(offer, document=within_row_limits(offer.document, options)) for offer in offered
    ]
    document_ids = _documents(session, offered)
    seen = intakes.documents_in(session, run_questions.run.id, list(document_ids.values()))
    rows, new = _rows(offered, document_ids, seen)
    insert_all(session, Intake, rows, run_id=run_questions.run.id)
    for group in divide(session, new):
        _add_jobs(session, settings, group.run_questions, group.documents, examples)
    counts = Counter(offer.entry_id for offer in offered if offer.entry_id is not None)
    ended = {offer.entry_id for offer in offered if offer.is_last}
    intakes.add_documents_taken(session, {of: counts[of] for of in counts if of not in ended})
    intakes.unlist(session, run_questions.run.id, {of: counts[of] for of in counts if of in ended})


def _rows(
    offered: Sequence[Offered], document_ids: Mapping[uuid.UUID, uuid.UUID], seen: set[uuid.UUID]
) -> tuple[list[dict[str, object]], dict[uuid.UUID, NewDocument]]:
    """Return the rows of intakes, and the documents that are new to the run by intake id."""
    rows: list[dict[str, object]] = []
    new: dict[uuid.UUID, NewDocument] = {}
    for offer in offered:
        document = offer.document
        of_file = {name: getattr(document, name) for name in ("source", "sha256", "byte_count")}
        row = {"id": offer.intake_id, "raw_path": offer.raw_path, **of_file}
        if isinstance(document, UnreadDocument):
            rows.append({**row, **_refused(document.error)})
            continue
        document_id = document_ids[offer.intake_id]
        is_again = document_id in seen
        if not is_again:
            seen.add(document_id)
            new[offer.intake_id] = NewDocument(
                document_id, document.content.text, document.identity
            )
        rows.append({**row, **_accepted(document.content, document_id, is_again=is_again)})
    return rows, new


def _documents(session: Session, offered: Sequence[Offered]) -> dict[uuid.UUID, uuid.UUID]:
    rows = {
        offer.intake_id: _document(offer.document)
        for offer in offered
        if isinstance(offer.document, ReadDocument)
    }
    return dict(zip(rows, documents.store_all(session, list(rows.values())), strict=True))


def _add_jobs(
    session: Session,
    settings: Settings,
    run_questions: RunQuestions,
    new: Mapping[uuid.UUID, NewDocument],
    examples: ChosenExamples,
) -> None:
    """Add the jobs of the documents that are new to the run.

    A job with a stored answer ends at once, and a job may follow another one. Every other job gets
    a message: for its only chunk, which is written here, or for its fan-out.
    """
    jobs = [
        _new_job(run_questions, intake_id, document, kind, examples)
        for intake_id, document in new.items()
        for kind in run_questions.options.types
    ]
    answers, leaders = _answers(session, run_questions, jobs)
    asking = [job for job in jobs if job.question not in {*answers, *leaders}]
    unanswered = [job for job in jobs if job.question not in answers]
    learned_examples.store(session, [example for job in unanswered for example in job.examples])
    whole = {job.id: len(job.text) for job in asking if run_questions.fits_one_chunk(job)}
    now = clock.read(session) if answers else None
    options, run = run_questions.options, run_questions.run
    until = batch_until(settings, Lane(run.lane))
    columns = {
        "run_id": run.id,
        "model": options.model,
        "batch_until": null() if until is None else until,
    }
    for kind in options.types:
        rows = [_job(j, answers, leaders, now, whole) for j in jobs if j.analysis_type == kind]
        question = options_to_json(options.analysis_of(kind))
        insert_all(session, Job, rows, options=question, **columns)
    ended = [job for job in jobs if job.question in answers]
    results.copy_all(session, {job.id: answers[job.question] for job in ended})
    chunk_ids = chunks.insert_single(session, whole)
    cut = [job.id for job in asking if job.id not in whole]
    urgency = Urgency.of_run(run.priority)
    for task, ids in ((ANALYZE_SLICE, chunk_ids), (FAN_OUT, cut)):
        outbox.promise(session, task, ids, reason="submitted", urgency=urgency)


def _new_job(
    run_questions: RunQuestions,
    intake_id: uuid.UUID,
    document: NewDocument,
    kind: AnalysisType,
    examples: ChosenExamples,
) -> _NewJob:
    question = document.id, run_questions.hashes[kind]
    job_examples = examples.get((document.sha256, kind), ()) if examples else ()
    return _NewJob(new_id(), intake_id, question, kind, document.text, job_examples)


def _answers(
    session: Session, run_questions: RunQuestions, jobs: Sequence[_NewJob]
) -> tuple[Mapping[ResultKey, uuid.UUID], Mapping[ResultKey, uuid.UUID]]:
    """Return the jobs that have answered the questions of new jobs, and the jobs to follow."""
    if not jobs or run_questions.options.fresh:
        return {}, {}
    questions = [job.question for job in jobs]
    leaders: Mapping[ResultKey, uuid.UUID] = {}
    if run_questions.options.follows:
        # Queried first: a leader that ends between the two queries has its answer in the second.
        leaders = shared_jobs.leaders(session, run_questions.run, questions, jobs[0].id)
    return results.reusable_all(session, questions), leaders


def _job(
    job: _NewJob,
    answers: Mapping[ResultKey, uuid.UUID],
    leaders: Mapping[ResultKey, uuid.UUID],
    now: datetime | None,
    whole: Container[uuid.UUID],
) -> dict[str, object]:
    document_id, options_hash = job.question
    is_answered = job.question in answers
    chunk_count = 1 if job.id in whole else None
    status = JobStatus.QUEUED if chunk_count is None else JobStatus.RUNNING
    return {
        "id": job.id,
        "intake_id": job.intake_id,
        "document_id": document_id,
        "analysis_type": job.analysis_type,
        "options_hash": options_hash,
        "examples": None if is_answered else [str(example.id) for example in job.examples] or None,
        "status": JobStatus.SUCCEEDED if is_answered else status,
        "chunk_count": chunk_count,
        "open_chunks": chunk_count,
        "reused_from": answers.get(job.question, leaders.get(job.question)),
        "finished_at": now if is_answered else None,
    }


def _refused(error: ReadError) -> dict[str, object]:
    return {
        "outcome": error.outcome,
        "reason": error.reason,
        "message": error.what,
        "hint": error.hint or None,
        "document_id": None,
    }


def _accepted(content: ReadText, document_id: uuid.UUID, *, is_again: bool) -> dict[str, object]:
    review = content.review_reason
    code, hint = document_flags.REASON, document_flags.HINT
    if content.pages_unread_reason or document_flags.has_illegible(content.flags):
        code, hint = failures.PAGES_UNREAD, failures.PAGES_HINT
    elif content.fields_unread:
        code, hint = failures.FIELDS_UNREAD, failures.FIELDS_HINT
    elif content.unseen_reason:
        code, hint = text_normalization.REASON, text_normalization.HINT
    return {
        "outcome": IntakeOutcome.DUPLICATE if is_again else IntakeOutcome.ACCEPTED,
        "reason": "same_content_in_run" if is_again else (code if review else None),
        "message": review or None,
        "hint": hint if review else None,
        "document_id": document_id,
    }


_NORMALIZATION = (
    *("nul_removed", "surrogates_replaced", "line_ends_changed", "encoding", "pages"),
    *("pages_unread", "pages_scanned", "pages_transcribed", "fields_unread", "invisible_removed"),
)


def _document(document: ReadDocument) -> Document:
    content = document.content
    layouts = [place.layout for place in content.places]
    return Document(
        sha256=document.identity,
        source=document.source,
        media_type=content.media_type,
        title=content.title or None,
        transcribed_by=content.transcribed_by or None,
        text=content.text,
        flags=as_json(content.flags),
        normalization={
            **{name: getattr(content, name) for name in _NORMALIZATION},
            "invisible_characters": content.invisible_characters + content.invisible_removed,
        },
        places=places.to_json(content.places) or None,
        layouts=layouts if any(layouts) else None,
    )


FLUSH_SECONDS = 0.2
"""The maximum time that a document waits for its batch to become full."""


class BatchWriter:
    """Passes documents to `store`, in order and in batches; a context manager.

    A batch is stored when it is full, `FLUSH_SECONDS` after its first document, and at the end of
    the block, also when the reader is interrupted. If another exception ends the block, waiting
    documents are discarded. At most one full batch waits while another one is stored, and none
    while a document larger than two batches is stored.
    """

    def __init__(self, store: Callable[[Sequence[Offered]], object]) -> None:
        self._store = store
        self._changed = Condition()
        self._waiting: deque[Offered] = deque()
        self._waiting_bytes = 0
        self._stored_bytes = 0
        self._is_closing = False
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="storing", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        is_complete = kind is None or issubclass(kind, ReadingInterruptedError)
        with self._changed:
            if not is_complete:
                self._waiting.clear()
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        if is_complete and self._error is not None:
            raise self._error

    def put(self, offered: Offered) -> None:
        """Add one document; block while the queue is full.

        Raises:
            BaseException: `store` raised this error; nothing more is stored.
        """
        with self._changed:
            self._waiting.append(offered)
            self._waiting_bytes += offered.byte_count
            if len(self._waiting) == 1 or self._is_full():
                self._changed.notify_all()
            self._changed.wait_for(
                lambda: (
                    self._error is not None
                    or not (self._is_full() or self._stored_bytes > 2 * MAX_BYTES)
                )
            )
            if self._error is not None:
                raise self._error

    def _is_full(self) -> bool:
        return len(self._waiting) >= MAX_DOCUMENTS or self._waiting_bytes >= MAX_BYTES

    def _run(self) -> None:
        try:
            while batch := self._next():
                self._store(batch)
        except BaseException as error:  # noqa: BLE001 - raised again by `put`
            with self._changed:
                self._error = error
                self._waiting.clear()
                self._changed.notify_all()

    def _next(self) -> list[Offered]:
        """Return the next batch when it is due; an empty one at the end."""
        with self._changed:
            self._stored_bytes = 0
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            self._changed.wait_for(lambda: self._is_full() or self._is_closing, FLUSH_SECONDS)
            batch: list[Offered] = []
            while self._waiting and len(batch) < MAX_DOCUMENTS and self._stored_bytes < MAX_BYTES:
                batch.append(self._waiting.popleft())
                self._stored_bytes += batch[-1].byte_count
            self._waiting_bytes -= self._stored_bytes
            return batch
