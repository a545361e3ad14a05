"""Counts of the questions of a run, document by document, from the real prompts."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from random import Random

from pydantic import SecretStr
from sqlalchemy import select

from chordwise.domain import chunking, estimates, tokens
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType, Stage
from chordwise.domain.estimates import Syntheses
from chordwise.domain.grounding import Source
from chordwise.domain.pictures import Picture
from chordwise.domain.states import Lane
from chordwise.embedded import llama
from chordwise.errors import InternalError
from chordwise.llm import prices
from chordwise.llm.batching import has_batches
from chordwise.llm.exchange import HttpModel
from chordwise.llm.middleware.cached import answer_settings, key_of
from chordwise.llm.middleware.tiered import Tiered
from chordwise.llm.model import (
    ChatModel,
    Completion,
    CompletionRequest,
    FinishReason,
    ModelProfile,
    Usage,
)
from chordwise.llm.provider import PROVIDERS, connect
from chordwise.llm.token_counts import TokenCounter, count_request
from chordwise.pipeline.asking.question import (
    about_part,
    groups_of,
    parts_of,
    request_for,
    room_for_answers,
    text_budget,
)
from chordwise.pipeline.intake import learned_examples
from chordwise.pipeline.intake.document_batches import within_row_limits
from chordwise.pipeline.intake.run_options import RunOptions, effective_options, identities
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.readers.reader import ReadDocument, Transcriber, UnreadDocument
from chordwise.settings import Settings
from chordwise.storage import cached_completions, results
from chordwise.storage.documents import Document
from chordwise.storage.results import ResultKey


@dataclass(slots=True, kw_only=True)
class WorkKind:
    """The questions of one analysis type to one model; each vote counts as a question.

    The texts have `chunks` of at most `chunk_tokens`. Of a wide schema, `groups` of fields are
    asked for one by one, with `fields` in each on average. `joined` has the number of chunks of
    each document whose answers a model joins.
    `synthesis_frame` is the number of tokens of a synthesis question without answers, and `room`
    the number available for them. The input of the critiques is `critique_tokens`, the answers of
    `critiqued_answers` chunks, and the answers under critique. `sample` is drawn from `offered`
    requests; `observed` has the numbers of output tokens of its answers.
    """

    analysis_type: AnalysisType
    model: UnaskedModel
    synthesis_frame: int
    room: float
    chunk_tokens: int = 0
    chunks: int = 0
    votes: int = 1
    groups: int = 1
    fields: float = 0
    offered: int = 0
    questions: int = 0
    input_tokens: int = 0
    text_tokens: float = 0
    joined: list[int] = field(default_factory=list)
    sample: list[CompletionRequest] = field(default_factory=list)
    observed: list[int] = field(default_factory=list)
    critiques: int = 0
    critique_tokens: int = 0
    critiqued_answers: int = 0

    def syntheses(self, answer_tokens: float, joined_tokens: float) -> Syntheses:
        """Return the questions that join answers of these lengths: a chunk's and a joined one."""
        lengths = (self.groups * answer_tokens, self.groups * joined_tokens)
        counts = [estimates.syntheses(chunks, *lengths, self.room) for chunks in self.joined]
        return Syntheses(
            questions=self.votes * self.groups * sum(count.questions for count in counts),
            material_tokens=self.votes * sum(count.material_tokens for count in counts),
        )


_ASSUMED_WORDS = 400


class AssumedPages:
    """A transcriber that calls no model and returns texts of typical length."""

    def __init__(self, settings: Settings) -> None:
        model = settings.model_named(settings.readers.vision)
        self.model = f"{model.provider}/{model.model}"

    def transcribe(self, pictures: Iterator[Picture], source: str) -> Mapping[int, str]:  # noqa: ARG002 - the protocol's signature
        """Return a text for each page; only identical pages have identical texts."""
        words = " ".join(["word"] * _ASSUMED_WORDS)
        return {
            picture.number: f"{hashlib.sha256(picture.data).hexdigest()} {words}"
            for picture in pictures
        }


def assumed_pages(settings: Settings) -> Transcriber | None:
    """Return the stand-in for the model that transcribes pages; `None` without such a model."""
    return AssumedPages(settings) if settings.readers.vision else None


@dataclass(slots=True, kw_only=True)
class Tally:
    """The counts of a run, by analysis type and model name.

    `pages` have to be transcribed first. `cached` questions have their completions in the cache and
    do not count in `kinds`.
    """

    documents: int = 0
    cached: int = 0
    pages: int = 0
    duplicates: int = 0
    jobs: int = 0
    reused: int = 0
    unread: list[UnreadDocument] = field(default_factory=list)
    kinds: dict[tuple[AnalysisType, str], WorkKind] = field(default_factory=dict)


_DOCUMENTS_AT_ONCE = 50
_CHARACTERS_AT_ONCE = 1_000_000
_QUESTIONS_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """A rendered question; `keys` are the cache keys of its samples."""

    kind: WorkKind
    request: CompletionRequest | None
    input_tokens: int
    text_tokens: float
    keys: Sequence[str]


class TallyBuilder:
    """Counts documents, and keeps a uniform sample of the requests of each kind.

    Stored results and completions are looked up for many documents and questions at a time.
    """

    def __init__(self, context: ReadingContext, options: RunOptions, sample: int) -> None:
        self._tally = Tally()
        self._context = context
        cache = context.settings.cache
        uses_cache = cache.enabled and options.use_cache and not options.fresh
        self._max_age = timedelta(days=cache.max_age_days) if uses_cache else None
        self._waiting: list[tuple[str, ReadDocument]] = []
        self._counted: list[_Counted] = []
        self._options = effective_options(context.settings, options)
        self._sample = sample
        settings, lane = context.settings, options.lane
        self._tiers = {
            tier: UnaskedModel(settings, name, lane)
            for tier, name in settings.tiers.selected_by(options.model).items()
        }
        self._model = (
            Tiered(self._tiers, settings.routing, lambda *_: None)
            if self._tiers
            else UnaskedModel(settings, options.model, lane)
        )
        self._hashes = identities(context.settings, self._options)
        self._analysis_options = {kind: self._options.analysis_of(kind) for kind in options.types}
        limit = context.settings.pipeline.chunk_tokens
        self._budgets = {
            kind: text_budget(self._model, self._task(kind), limit) for kind in options.types
        }
        self._examples = learned_examples.of_run(context, self._options, self._budgets)
        self._seen: set[str] = set()
        self._is_assumed = False
        self._random = Random(0)  # noqa: S311 - the same sample for the same documents

    def add(self, document: ReadDocument | UnreadDocument) -> None:
        """Count a document."""
        document = within_row_limits(document, self._options)
        if isinstance(document, UnreadDocument):
            self._tally.unread.append(document)
            return
        sha256 = document.identity
        if sha256 in self._seen:
            self._tally.duplicates += 1
            return
        self._seen.add(sha256)
        self._waiting.append((sha256, document))
        characters = sum(len(entry.content.text) for _, entry in self._waiting)
        if len(self._waiting) == _DOCUMENTS_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            self._count_waiting()

    def finish(self) -> Tally:
        """Count the remaining documents and return the counts."""
        self._count_waiting()
        self._add_counted()
        return self._tally

    def _count_waiting(self) -> None:
        ids, answered = self._stored([sha256 for sha256, _ in self._waiting])
        for sha256, document in self._waiting:
            self._tally.documents += 1
            self._tally.pages += document.content.pages_transcribed
            self._is_assumed = document.content.pages_transcribed > 0
            self._tally.jobs += len(self._options.types)
            for kind in self._options.types:
                if (ids.get(sha256), self._hashes[kind]) in answered:
                    self._tally.reused += 1
                else:
                    self._add_job(kind, document)
        self._waiting.clear()

    def _stored(
        self, hashes: Collection[str]
    ) -> tuple[Mapping[str, uuid.UUID], Collection[ResultKey]]:
        """Return the ids of stored documents by hash, and the questions about them with results."""
        if self._options.fresh:
            return {}, ()
        with self._context.database.read() as session:
            of = select(Document.sha256, Document.id).where(Document.sha256.in_(hashes))
            ids = {sha256: id_ for sha256, id_ in session.execute(of)}  # noqa: C416 - rows are no pairs to mypy
            keys = [(id_, of_type) for id_ in ids.values() for of_type in self._hashes.values()]
            return ids, results.reusable_all(session, keys)

    def _add_job(self, analysis_type: AnalysisType, document: ReadDocument) -> None:
        text = document.content.text
        task, budget = self._task(analysis_type), self._budgets[analysis_type]
        if examples := self._examples.get(analysis_type):
            chosen = examples.select(document.identity, text)
            shown = tuple(learned.example for learned in chosen)
            task = replace(task, examples=shown)
            limit = self._context.settings.pipeline.chunk_tokens
            budget = text_budget(self._model, task, limit)
        parts = chunking.split(text, *budget)
        for part in parts:
            part_task, _ = about_part(task, Source(text), part.start_char, part.end_char)
            part_task = replace(part_task, text=part_task.text.strip() or part_task.text)
            questions = parts_of(self._model, part_task)
            self._kind(questions[0]).chunks += 1
            for question in questions:
                self._add_question(question)
        # Whether the chunks contradict each other is unknown; count as if they did.
        analysis = analysis_for(analysis_type)
        if len(parts) > 1 and analysis.needs_model_to_join(task.options):
            joining = replace(self._task(analysis_type), stage=Stage.SYNTHESIZE)
            self._kind(joining).joined.append(len(parts))
        if self._options.analysis.critique:
            self._add_critique(analysis_type, text if len(parts) == 1 else "", len(parts))

    def _add_critique(self, analysis_type: AnalysisType, text: str, parts: int) -> None:
        """Count the critique of an answer about `text`; with an empty text, of a joined answer."""
        task = replace(self._task(analysis_type), stage=Stage.CRITIQUE, text=text.strip(), draft={})
        kind = self._kind(task)
        kind.critiques += 1
        kind.critique_tokens += kind.model.tokens_of(request_for(self._model, task))
        kind.critiqued_answers += 0 if text else parts

    def _add_question(self, task: AnalysisTask) -> None:
        kind = self._kind(task)
        request = request_for(self._model, task)
        counted = _Counted(
            kind=kind,
            request=request if self._sample and not self._is_assumed else None,
            input_tokens=kind.model.tokens_of(request),
            text_tokens=tokens.weigh(task.text),
            keys=self._keys(kind, request),
        )
        self._counted.append(counted)
        if len(self._counted) == _QUESTIONS_AT_ONCE:
            self._add_counted()

    def _keys(self, kind: WorkKind, request: CompletionRequest) -> Sequence[str]:
        if self._max_age is None or not kind.model.profile.understands_language:
            return ()
        about = answer_settings(kind.model.settings)
        tasks = (replace(request.task, sample=number + 1) for number in range(kind.votes))
        return [key_of(replace(request, task=task), about) for task in tasks]

    def _add_counted(self) -> None:
        """Count the questions that the cache does not answer."""
        keys = {key for question in self._counted for key in question.keys}
        cached_keys: Collection[str] = ()
        if keys and self._max_age is not None:
            with self._context.database.read() as session:
                cached_keys = cached_completions.cached_keys(session, keys, self._max_age)
        for question in self._counted:
            kind, cached = question.kind, sum(key in cached_keys for key in question.keys)
            self._tally.cached += cached
            kind.questions += kind.votes - cached
            kind.input_tokens += (kind.votes - cached) * question.input_tokens
            kind.text_tokens += (kind.votes - cached) * question.text_tokens
            if question.request is not None and cached < kind.votes:
                self._sample_request(kind, question.request)
        self._counted.clear()

    def _sample_request(self, kind: WorkKind, request: CompletionRequest) -> None:
        """Sample each request with equal probability (Vitter, Random Sampling with a Reservoir)."""
        kind.offered += 1
        if len(kind.sample) < self._sample:
            kind.sample.append(request)
            return
        place = self._random.randrange(kind.offered)
        if place < self._sample:
            kind.sample[place] = request

    def _kind(self, task: AnalysisTask) -> WorkKind:
        model = self._model  # escalations are not estimated
        if isinstance(model, Tiered):
            model = self._tiers[model.steps(task)[0].tier]
        key = (task.analysis_type, model.name)
        if key not in self._tally.kinds:
            joining = replace(self._task(task.analysis_type), stage=Stage.SYNTHESIZE)
            groups = groups_of(self._model, joining)
            frames = [request_for(model, part) for part in parts_of(self._model, joining)]
            self._tally.kinds[key] = WorkKind(
                analysis_type=task.analysis_type,
                model=model,
                chunk_tokens=self._budgets[task.analysis_type].max_tokens,
                votes=task.options.votes if model.profile.understands_language else 1,
                groups=len(frames),
                fields=sum(group.fields for group in groups) / len(frames),
                synthesis_frame=sum(map(model.tokens_of, frames)) // len(frames),
                room=room_for_answers(model, joining),
            )
        return self._tally.kinds[key]

    def _task(self, analysis_type: AnalysisType) -> AnalysisTask:
        options = self._analysis_options[analysis_type]
        return AnalysisTask(analysis_type=analysis_type, stage=Stage.ANALYZE, options=options)


ONLINE = Lane.ONLINE.value
_NO_ADDRESS = "http://127.0.0.1/v1"
_NO_KEY = SecretStr("unused")


class UnaskedModel(ChatModel):
    """A model of the settings that is never called; it needs neither a key nor its server.

    `run_lane` is the lane of the run; a model without a batch API uses the online lane instead.
    """

    def __init__(self, settings: Settings, name: str, run_lane: Lane) -> None:
        self.name = name
        self.settings = settings.model_named(name)
        self._run_lane = run_lane
        self._provider = PROVIDERS[self.settings.provider]
        self.counter: TokenCounter = self._provider.token_counter(self.settings)
        changes: dict[str, object] = {"keep_alive": ""}
        if llama.is_served_here(self.settings):
            tokens_here = llama.context_tokens(self.settings)
            changes |= {"base_url": _NO_ADDRESS, "context_tokens": tokens_here}
        self._connected = connect(self.settings.model_copy(update=changes), _NO_KEY)

    @property
    def profile(self) -> ModelProfile:
        """The properties of the model according to the settings."""
        return self._connected.profile

    @property
    def label(self) -> str:
        """The provider and the model."""
        return f"{self.profile.provider}/{self.profile.model}"

    @property
    def lane(self) -> str:
        """The lane in which the run asks this model."""
        if self._run_lane is Lane.BATCH and has_batches(self.settings):
            return prices.BATCH
        return self.lane_now

    @property
    def lane_now(self) -> str:
        """The lane in which the model answers without a batch."""
        return self.settings.service_tier or ONLINE

    @property
    def lanes(self) -> tuple[str, ...]:
        """The lanes that the model's provider offers."""
        flex = (prices.FLEX,) if self._provider.has_service_tiers(self.settings) else ()
        batch = (prices.BATCH,) if has_batches(self.settings) else ()
        return (ONLINE, *flex, *batch)

    def complete(self, request: CompletionRequest) -> Completion:
        """Raise an error, as this model is never called.

        Raises:
            InternalError: Always.
        """
        raise InternalError(
            f"{self.name} is only quoted and cannot be asked {request.schema_name}."
        )

    def tokens_of(self, request: CompletionRequest) -> int:
        """Return the number of input tokens of a request."""
        if isinstance(self._connected, HttpModel):
            return count_request(self.counter, self._connected.body(request))
        read = request.task.text or json.dumps(request.task.answers, ensure_ascii=False)
        return tokens.estimate(read)

    def cost_usd(self, input_tokens: float, output_tokens: float, lane: str) -> Decimal | None:
        """Return the cost of one question; `None` if the price is unknown."""
        usage = Usage(input_tokens=round(input_tokens), output_tokens=round(output_tokens))
        completion = Completion(
            text="",
            finish_reason=FinishReason.STOP,
            usage=usage,
            provider=self.profile.provider,
            model=self.profile.model,
            service_tier="" if lane == ONLINE else lane,
        )
        return prices.price_of(self.settings).cost_usd(completion)
