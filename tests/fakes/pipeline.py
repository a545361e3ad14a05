"""Drives the use cases of the pipeline step by step, with a scripted model and real servers."""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

from celery._state import _set_task_join_will_block
from sqlalchemy import select, text

from chordwise.domain import grounding, json_values
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.states import OPEN_CHUNKS, Lane
from chordwise.errors import ReadError
from chordwise.llm.batching import BatchApi
from chordwise.llm.model import ChatModel, CompletionRequest
from chordwise.pipeline.intake.document_batches import Offered
from chordwise.pipeline.intake.found_files import Found
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.intake.submit import Submission, open_run
from chordwise.pipeline.jobs.analyze_chunk import analyze_chunk
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.jobs.synthesize import synthesize
from chordwise.pipeline.models.model_client import Models
from chordwise.pipeline.runtime.context import Context, open_stores
from chordwise.pipeline.runtime.leases import LeaseKeeper
from chordwise.pipeline.runtime.messages import Messenger, open_app
from chordwise.readers.reader import ReadDocument, ReadText, UnreadDocument
from chordwise.settings import ModelSettings, Settings
from chordwise.storage.chunks import Chunk
from chordwise.storage.claims import claim_chunk
from chordwise.storage.database import Database, open_engine
from chordwise.storage.jobs import Job
from chordwise.storage.results import Result
from tests.fakes.processes import wait_until
from tests.fakes.scripted_model import Line, ScriptedModel

SCRIPTED = "scripted"
AWAY = ModelSettings(
    provider="openai", model=SCRIPTED, base_url="http://127.0.0.1:9/v1", price="free"
)
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
AN_UNREAD_SCAN = UnreadDocument(
    source="scan.pdf",
    error=ReadError("scan.pdf holds no text.", "Run it through OCR.", "unreadable", "needs_ocr"),
)
PARAGRAPH = "The harbour of Lindau was rebuilt in 1856. It cost more than the town had planned. "
SHORT = "The bridge was opened in May. Carts crossed it on the same day."
LONG = "".join(f"{number}. {PARAGRAPH}" for number in range(120))
_names = itertools.count(1)
_messengers: dict[str, Messenger] = {}
_opened: list[Callable[[], None]] = []


def offered(*documents: Found) -> list[Offered]:
    """Return what an intake stores as one batch, without entries of a list."""
    return [Offered(document=document) for document in documents]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A context over the servers of the test, and its scripted model."""

    context: Context
    model: ScriptedModel

    def submit(self, *documents: str | Found, options: RunOptions | None = None) -> Submission:
        """Submit texts, documents and errors as one run, and close it."""
        submission = open_run(self.context, options or a_run(), NOW)
        for document in documents:
            submission.take_in(
                offered(a_document(document) if isinstance(document, str) else document)
            )
        submission.close()
        return submission

    def analyze(self, *documents: str | Found, options: RunOptions | None = None) -> Submission:
        """Submit texts, documents and errors as one run, and do its work."""
        submission = self.submit(*documents, options=options)
        self.work(submission)
        return submission

    def fan_out(self, *texts: str) -> list[tuple[uuid.UUID, uuid.UUID]]:
        """Submit texts and fan them out; return the ids of job and chunk for each chunk."""
        jobs = self.jobs(self.submit(*texts))
        for job in jobs:
            fan_out(self.context, job.id)
        return [(job.id, chunk_id) for job in jobs for chunk_id in self.open_chunks(job.id)]

    def work(self, submission: Submission) -> None:
        """Do the work of the workers for a run, one job after the other."""
        for job in self.jobs(submission):
            self.work_on(job.id)

    def work_on(self, job_id: uuid.UUID) -> None:
        """Fan a job out, analyze its chunks and synthesize it."""
        fan_out(self.context, job_id)
        for chunk_id in self.open_chunks(job_id):
            analyze_chunk(self.context, chunk_id)
        synthesize(self.context, job_id)

    def jobs(self, submission: Submission) -> Sequence[Job]:
        """Return the current jobs of the run, in order."""
        with self.context.database.read() as session:
            statement = select(Job).where(Job.run_id == submission.run_id).order_by(Job.id)
            return session.scalars(statement).all()

    def job(self, submission: Submission) -> Job:
        """Return the only job of the run."""
        (job,) = self.jobs(submission)
        return job

    def open_chunks(self, job_id: uuid.UUID) -> Sequence[uuid.UUID]:
        with self.context.database.read() as session:
            return session.scalars(
                select(Chunk.id)
                .where(Chunk.job_id == job_id, Chunk.status.in_(OPEN_CHUNKS))
                .order_by(Chunk.position)
            ).all()

    def claim(self, chunk_id: uuid.UUID) -> uuid.UUID:
        """Claim a chunk as another worker would; return the lease token."""
        token = uuid.uuid4()
        max_attempts = self.context.settings.pipeline.max_attempts
        with self.context.database.write() as session:
            lease = timedelta(seconds=60)
            claimed = claim_chunk(session, chunk_id, token, lease, max_attempts)
            assert claimed is not None
            assert claimed.is_claimed
        return token

    def expire_leases(self) -> None:
        """Expire every lease, once the database has been up for long enough."""
        up = "SELECT pg_postmaster_start_time() < clock_timestamp() - interval '7 seconds'"
        wait_until(lambda: self.value(up) is True, 15, up)
        for table in ("chunks", "jobs", "runs", "inbox_files", "listed_files", "schedule_runs"):
            self.execute(f"UPDATE {table} SET lease_until = now() - interval '1 second'")  # noqa: S608 - fixed names

    def result(self, job_id: uuid.UUID) -> Result:
        with self.context.database.read() as session:
            return session.scalars(select(Result).where(Result.job_id == job_id)).one()

    def value(self, query: str, **parameters: object) -> object:
        with self.context.database.read() as session:
            value: object = session.execute(text(query), parameters).scalar_one()
            return value

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with self.context.database.read() as session:
            return [tuple(row) for row in session.execute(text(query))]

    def execute(self, statement: str, **parameters: object) -> None:
        with self.context.database.write() as session:
            session.execute(text(statement), parameters)


def a_pipeline(
    settings: Settings,
    *script: Line,
    repeat_last: bool = False,
    model_settings: ModelSettings = AWAY,
    batch_api: BatchApi | None = None,
) -> Pipeline:
    """Open a pipeline whose model has `model_settings` and follows the script online.

    `batch_api` answers its questions in the batch lane.
    """
    assert settings.database_url is not None
    model = ScriptedModel(script, repeat_last=repeat_last)
    adapted = _asking_once(settings, model_settings)
    # As in a worker: no thread waits for results or subscribes to them.
    _set_task_join_will_block(True)
    engine = open_engine(settings.database_url)
    _opened.append(engine.dispose)
    database = Database(engine)
    pipeline = adapted.pipeline
    context = Context(
        settings=adapted,
        database=database,
        stores=open_stores(adapted, database),
        models=Models(
            adapted,
            connected={SCRIPTED: model},
            batch_apis={SCRIPTED: batch_api} if batch_api else None,
        ),
        messenger=_messenger(adapted),
        leases=LeaseKeeper(
            database,
            timedelta(seconds=pipeline.lease_seconds),
            timedelta(seconds=pipeline.heartbeat_seconds),
        ),
        random=Random(0),  # noqa: S311 - the same jitter in every run
    )
    _opened.append(context.leases.stop)
    return Pipeline(context=context, model=model)


def with_models(
    pipeline: Pipeline, settings: Settings, connected: Mapping[str, ChatModel] | None = None
) -> Pipeline:
    """Return the pipeline with these settings and their models; `connected` replaces some."""
    models = Models(settings, connected=connected)
    return replace(pipeline, context=replace(pipeline.context, settings=settings, models=models))


def _asking_once(settings: Settings, model_settings: ModelSettings) -> Settings:
    """Return settings with the scripted model and without retries."""
    models = {**settings.models, SCRIPTED: model_settings}
    once = settings.retries.model_copy(update={"attempts": 1})
    return settings.model_copy(update={"models": models, "retries": once})


def _messenger(settings: Settings) -> Messenger:
    """Return the messenger for a broker; Celery keeps the sockets of a dropped messenger open."""
    assert settings.broker_url is not None
    address = settings.broker_url.get_secret_value()
    if address not in _messengers:
        _messengers[address] = Messenger(open_app(settings))
    return _messengers[address]


def close_all() -> None:
    """Close the connections of all open pipelines."""
    while _opened:
        _opened.pop()()


def a_run(
    *types: AnalysisType,
    fresh: bool = False,
    analysis: AnalysisOptions | None = None,
    lane: Lane = Lane.ONLINE,
    budget_usd: Decimal | None = None,
) -> RunOptions:
    """Return the options of a run with the scripted model."""
    return RunOptions(
        types=types or (AnalysisType.SUMMARY,),
        analysis=analysis or AnalysisOptions(),
        model=SCRIPTED,
        name=f"run {next(_names)}",
        fresh=fresh,
        lane=lane,
        budget_usd=budget_usd,
    )


def hash_of(text: str) -> str:
    """Return the hash that identifies the document of a plain text."""
    return a_document(text).identity


def a_document(content: str, source: str = "") -> ReadDocument:
    """Return a document as the reader returns it for plain text."""
    return ReadDocument(
        source=source or f"document-{next(_names)}.txt",
        sha256=hashlib.sha256(content.encode()).hexdigest(),
        byte_count=len(content.encode()),
        content=ReadText(text=content, media_type="text/plain"),
    )


def a_label(
    label: str | None, confidence: float = 0.8, quote: str | None = "rebuilt in 1856"
) -> str:
    """Return a classification, by default of the paragraph; without a quote it has no feature."""
    return json.dumps(
        {
            "primary_label": label,
            "secondary_label": None,
            "confidence": confidence,
            "features": [{"feature": "it says so", "quote": quote}] if quote else [],
            "uncertainty_factors": [],
        }
    )


def a_summary(*quotes: str, topic: str = "A topic.", confidence: int = 7) -> str:
    """Return a summary with a finding for each quote."""
    findings = [{"finding": f"Finding about {quote}", "quote": quote} for quote in quotes]
    return json.dumps(
        {
            "main_topic": topic,
            "key_findings": findings,
            "conclusions": ["So it is."],
            "confidence": confidence,
        }
    )


def quoting_the_text(request: CompletionRequest) -> str:
    """Answer an analysis with the first words of the text, a synthesis with its parts' quotes."""
    task = request.task
    if task.answers:
        quotes = [item for answer in task.answers for item in grounding.quotes(answer)]
        return a_summary(*[json_values.text(item["quote"]) for item in quotes[:5]])
    beginning = task.text.strip()[:40]
    return a_summary(beginning.rpartition(" ")[0] or beginning)


def with_settings(settings: Settings, section: str, **values: object) -> Settings:
    """Return settings with some values of a section changed."""
    changed = getattr(settings, section).model_copy(update=values)
    return settings.model_copy(update={section: changed})
