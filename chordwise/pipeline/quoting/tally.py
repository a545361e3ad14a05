"""Counting the questions that a run would ask, document by document, with the real prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from random import Random

from pydantic import SecretStr
from sqlalchemy import select

from chordwise.domain import chunking, estimates, tokens
from chordwise.domain.analyses.catalog import analysis_for
from chordwise.domain.estimates import Syntheses
from chordwise.domain.pictures import Picture
from chordwise.domain.routing import Tier
from chordwise.domain.states import Lane
from chordwise.domain.tasks import AnalysisTask, AnalysisType, Stage
from chordwise.embedded import llama
from chordwise.errors import InternalError
from chordwise.llm import pricing
from chordwise.llm.batching import has_batches
from chordwise.llm.counting import TokenCounter, count_request, counter_for
from chordwise.llm.middleware.tiered import Tiered
from chordwise.llm.model import (
    EXTRACTIVE,
    ChatModel,
    Completion,
    CompletionRequest,
    FinishReason,
    ModelProfile,
    Usage,
)
from chordwise.llm.providers import connect, has_service_tiers
from chordwise.llm.providers.anthropic import AnthropicModel
from chordwise.llm.providers.extractive import built_in
from chordwise.llm.providers.openai import OpenAIModel
from chordwise.pipeline.asking.question import (
    about_part,
    request_for,
    room_for_answers,
    text_budget,
)
from chordwise.pipeline.intake.run_options import RunOptions, answerable, identity
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.readers.reading import ReadDocument, Transcriber, UnreadDocument
from chordwise.settings import ModelSettings, Settings
from chordwise.storage import documents, results
from chordwise.storage.documents import Document


@dataclass(slots=True, kw_only=True)
class WorkKind:
    """The questions of one analysis type to one model, each as often as there are votes.

    `joined` has for each document of several chunks how many there are; `synthesis_frame` is what a
    question that joins answers takes without them, `room` what answers may take in it. A critique
    reads `critique_tokens`, the `critiqued_answers` of chunks, and the answer that it is about. The
    answers to the `sample` had the `observed` numbers of tokens.
    """

    analysis_type: AnalysisType
    model: UnaskedModel
    synthesis_frame: int
    room: float
    votes: int = 1
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
        """Return what joining takes if a chunk's answer is so long, and a joined one so."""
        found = [
            estimates.syntheses(chunks, answer_tokens, joined_tokens, self.room)
            for chunks in self.joined
        ]
        return Syntheses(
            questions=self.votes * sum(each.questions for each in found),
            material_tokens=self.votes * sum(each.material_tokens for each in found),
        )


_ASSUMED_WORDS = 400


class AssumedPages:
    """Stands for the model of `readers.vision` where none is asked: each page has a usual text."""

    def __init__(self, settings: Settings) -> None:
        named = settings.model_named(settings.readers.vision)
        self.model = f"{named.provider}/{named.model}"

    def transcribe(self, pictures: Iterator[Picture], source: str) -> Mapping[int, str]:  # noqa: ARG002 - the signature is the port's
        """Return texts of equal length, equal where the pages are."""
        words = " ".join(["word"] * _ASSUMED_WORDS)
        return {
            each.number: f"{hashlib.sha256(each.data).hexdigest()} {words}" for each in pictures
        }


def assumed_pages(settings: Settings) -> Transcriber | None:
    """Return what stands for the model that reads pages, where the settings name one."""
    return AssumedPages(settings) if settings.readers.vision else None


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was counted so far, by analysis type and name of the model.

    `pages` are those that a model has to read first.
    """

    documents: int = 0
    pages: int = 0
    duplicates: int = 0
    jobs: int = 0
    reused: int = 0
    unread: list[UnreadDocument] = field(default_factory=list)
    kinds: dict[tuple[AnalysisType, str], WorkKind] = field(default_factory=dict)


class Tallying:
    """Counts one document after the other; keeps `sample` requests of each kind, drawn evenly."""

    def __init__(self, context: ReadingContext, options: RunOptions, sample: int) -> None:
        self.tally = Tally()
        self._context = context
        self._options = answerable(context.settings, options)
        self._sample = sample
        self._models = opened(context.settings, options.model, options.lane)
        self._model = self._models.asked
        self._hashes = {each: identity(context, each, self._options) for each in options.types}
        most = context.settings.pipeline.chunk_tokens
        self._budgets = {
            each: text_budget(self._model, self._task(each), most) for each in options.types
        }
        self._seen: set[str] = set()
        self._is_assumed = False
        self._random = Random(0)  # noqa: S311 - the same sample for the same documents

    def add(self, found: ReadDocument | UnreadDocument) -> None:
        """Count a document."""
        if isinstance(found, UnreadDocument):
            self.tally.unread.append(found)
            return
        sha256 = documents.hash_of(found.content.text)
        if sha256 in self._seen:
            self.tally.duplicates += 1
            return
        self._seen.add(sha256)
        self.tally.documents += 1
        self.tally.pages += found.content.pages_transcribed
        self._is_assumed = found.content.pages_transcribed > 0
        reusable = self._reusable(sha256)
        self.tally.jobs += len(self._options.types)
        self.tally.reused += len(reusable)
        for each in self._options.types:
            if each not in reusable:
                self._add_job(each, found.content.text)

    def _reusable(self, sha256: str) -> set[AnalysisType]:
        if self._options.fresh:
            return set()
        with self._context.database.read() as session:
            stored = session.scalar(select(Document.id).where(Document.sha256 == sha256))
            if stored is None:
                return set()
            return {
                each
                for each, options_hash in self._hashes.items()
                if results.reusable(session, stored, options_hash)
            }

    def _add_job(self, analysis_type: AnalysisType, text: str) -> None:
        parts = chunking.split(text, self._budgets[analysis_type])
        for part in parts:
            task = self._task(analysis_type)
            asked, _ = about_part(task, text, part.start_char, part.end_char)
            self._add_question(replace(asked, text=asked.text.strip() or asked.text))
        # Chunks that may contradict each other are counted as if they did.
        analysis = analysis_for(analysis_type)
        if len(parts) > 1 and analysis.needs_model_to_join(self._options.analysis):
            joining = replace(self._task(analysis_type), stage=Stage.SYNTHESIZE)
            self._kind(joining).joined.append(len(parts))
        if self._options.analysis.critique:
            self._add_critique(analysis_type, text if len(parts) == 1 else "", len(parts))

    def _add_critique(self, analysis_type: AnalysisType, text: str, parts: int) -> None:
        """Count the critique of an answer: about a text, or without one about several answers."""
        task = replace(self._task(analysis_type), stage=Stage.CRITIQUE, text=text.strip(), draft={})
        kind = self._kind(task)
        kind.critiques += 1
        kind.critique_tokens += kind.model.tokens_of(request_for(self._model, task))
        kind.critiqued_answers += 0 if text else parts

    def _add_question(self, task: AnalysisTask) -> None:
        kind = self._kind(task)
        request = request_for(self._model, task)
        kind.questions += kind.votes
        kind.input_tokens += kind.votes * kind.model.tokens_of(request)
        kind.text_tokens += kind.votes * tokens.weigh(task.text)
        if not self._is_assumed:
            self._draw(kind, request)

    def _draw(self, kind: WorkKind, request: CompletionRequest) -> None:
        """Keep every request with the same chance (Vitter, Random Sampling with a Reservoir)."""
        if len(kind.sample) < self._sample:
            kind.sample.append(request)
            return
        place = self._random.randrange(kind.questions // kind.votes)
        if place < self._sample:
            kind.sample[place] = request

    def _kind(self, task: AnalysisTask) -> WorkKind:
        model = self._asked_first(task)
        key = (task.analysis_type, model.name)
        if key not in self.tally.kinds:
            joining = replace(self._task(task.analysis_type), stage=Stage.SYNTHESIZE)
            self.tally.kinds[key] = WorkKind(
                analysis_type=task.analysis_type,
                model=model,
                votes=task.options.votes if model.profile.understands_language else 1,
                synthesis_frame=model.tokens_of(request_for(model, joining)),
                room=room_for_answers(model, joining),
            )
        return self.tally.kinds[key]

    def _asked_first(self, task: AnalysisTask) -> UnaskedModel:
        """Return the model that a question goes to; what tiers escalate is not foreseen."""
        if isinstance(self._model, Tiered):
            return self._models.tiers[self._model.steps(task)[0].tier]
        return self._models.largest

    def _task(self, analysis_type: AnalysisType) -> AnalysisTask:
        options = self._options.analysis
        return AnalysisTask(analysis_type=analysis_type, stage=Stage.ANALYZE, options=options)


ONLINE = Lane.ONLINE.value
_NO_ADDRESS = "http://127.0.0.1/v1"
_NO_KEY = SecretStr("unused")


class UnaskedModel(ChatModel):
    """One model by its name in the settings; neither a key nor its server is needed.

    `wanted` is the lane of the run; a model without batches is asked online all the same.
    """

    def __init__(self, name: str, settings: ModelSettings, wanted: Lane) -> None:
        self.name = name
        self.settings = settings
        self._wanted = wanted
        self.counter: TokenCounter = counter_for(settings)
        self._connected = _connected(settings)

    @property
    def profile(self) -> ModelProfile:
        """Return what the settings say of the model."""
        return self._connected.profile

    @property
    def label(self) -> str:
        """Return provider and model."""
        return f"{self.profile.provider}/{self.profile.model}"

    @property
    def lane(self) -> str:
        """Return the lane in which the run asks this model."""
        if self._wanted is Lane.BATCH and has_batches(self.settings):
            return pricing.BATCH
        return self.lane_now

    @property
    def lane_now(self) -> str:
        """Return the lane in which the model is asked without waiting for a batch."""
        return self.settings.service_tier or ONLINE

    @property
    def lanes(self) -> tuple[str, ...]:
        """Return the lanes that the model's provider has."""
        flex = (pricing.FLEX,) if has_service_tiers(self.settings) else ()
        batch = (pricing.BATCH,) if has_batches(self.settings) else ()
        return (ONLINE, *flex, *batch)

    def complete(self, request: CompletionRequest) -> Completion:
        """Refuse.

        Raises:
            InternalError: Always.
        """
        raise InternalError(
            f"{self.name} is only quoted and cannot be asked {request.schema_name}."
        )

    def tokens_of(self, request: CompletionRequest) -> int:
        """Return the input tokens of a request."""
        if isinstance(self._connected, OpenAIModel | AnthropicModel):
            return count_request(self.counter, self.settings, self._connected.body(request))
        read = request.task.text or json.dumps(request.task.answers, ensure_ascii=False)
        return tokens.estimate(read)

    def cost_usd(self, input_tokens: float, output_tokens: float, lane: str) -> Decimal | None:
        """Return what one question costs; `None` where the price is unknown."""
        usage = Usage(input_tokens=round(input_tokens), output_tokens=round(output_tokens))
        completion = Completion(
            text="",
            finish_reason=FinishReason.STOP,
            usage=usage,
            provider=self.profile.provider,
            model=self.profile.model,
            service_tier="" if lane == ONLINE else lane,
        )
        return pricing.price_of(self.settings).cost_usd(completion)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnaskedModels:
    """What a name stands for: `asked` is the model that questions are put to, or all its tiers."""

    asked: ChatModel
    tiers: Mapping[Tier, UnaskedModel]
    largest: UnaskedModel


def opened(settings: Settings, name: str, wanted: Lane = Lane.ONLINE) -> UnaskedModels:
    """Return the models behind a name for a run in this lane; fallbacks are not among them.

    Raises:
        ConfigurationError: There is no such model, or it cannot be used as configured.
    """

    def unasked(each: str) -> UnaskedModel:
        return UnaskedModel(each, settings.model_named(each), wanted)

    tiers = {tier: unasked(each) for tier, each in settings.tiers.behind(name).items()}
    if not tiers:
        single = unasked(name)
        return UnaskedModels(asked=single, tiers={}, largest=single)
    asked = Tiered(tiers, settings.routing, lambda *_: None)
    return UnaskedModels(asked=asked, tiers=tiers, largest=list(tiers.values())[-1])


def _connected(settings: ModelSettings) -> ChatModel:
    if settings.provider == EXTRACTIVE:
        return built_in(settings)
    changes: dict[str, object] = {"keep_alive": ""}
    if llama.is_served_here(settings):
        changes |= {"base_url": _NO_ADDRESS, "context_tokens": llama.context_tokens(settings)}
    return connect(settings.model_copy(update=changes), _NO_KEY)
