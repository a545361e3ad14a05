"""Counting the questions that a run would ask, document by document, with the real prompts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from sqlalchemy import select

from chordwise.domain import chunking, estimating, tokens
from chordwise.domain.estimating import Syntheses
from chordwise.domain.tasks import AnalysisTask, AnalysisType, Stage
from chordwise.llm.middleware.tiered import Tiered
from chordwise.llm.model import CompletionRequest
from chordwise.pipeline.asking.requests import request_for, room_for_answers, text_budget
from chordwise.pipeline.intake.run_options import RunOptions, answerable, identity
from chordwise.pipeline.quoting import unasked
from chordwise.pipeline.quoting.unasked import UnaskedModel
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.readers.reading import ReadDocument, UnreadDocument
from chordwise.storage import documents, results
from chordwise.storage.documents import Document


@dataclass(slots=True, kw_only=True)
class WorkKind:
    """The questions of one analysis type to one model, each as often as there are votes.

    `joined` has for each document of several chunks how many there are; `synthesis_frame` is what a
    question that joins answers takes without them, `room` what answers may take in it. A critique
    reads `critique_tokens`, the `critiqued_answers` of chunks, and the answer that it is about.
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
    critiques: int = 0
    critique_tokens: int = 0
    critiqued_answers: int = 0

    def syntheses(self, answer_tokens: float, joined_tokens: float) -> Syntheses:
        """Return what joining takes if a chunk's answer is so long, and a joined one so."""
        found = [
            estimating.syntheses(chunks, answer_tokens, joined_tokens, self.room)
            for chunks in self.joined
        ]
        return Syntheses(
            questions=self.votes * sum(each.questions for each in found),
            material_tokens=self.votes * sum(each.material_tokens for each in found),
        )


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was counted so far, by analysis type and name of the model."""

    documents: int = 0
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
        self._models = unasked.opened(context.settings, options.model, options.lane)
        self._model = self._models.asked
        self._hashes = {each: identity(context, each, self._options) for each in options.types}
        self._budgets = {each: self._budget(each) for each in options.types}
        self._seen: set[str] = set()
        self._random = Random(0)  # noqa: S311 - the same sample for the same documents

    def add(self, found: ReadDocument | UnreadDocument) -> None:
        """Count a document.

        Raises:
            ServiceUnavailableError: The database cannot be reached.
        """
        if isinstance(found, UnreadDocument):
            self.tally.unread.append(found)
            return
        sha256 = documents.hash_of(found.content.text)
        if sha256 in self._seen:
            self.tally.duplicates += 1
            return
        self._seen.add(sha256)
        self.tally.documents += 1
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
            whole = text[part.start_char : part.end_char]
            self._add_question(analysis_type, whole.strip() or whole)
        if len(parts) > 1:
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

    def _add_question(self, analysis_type: AnalysisType, text: str) -> None:
        task = replace(self._task(analysis_type), text=text)
        kind = self._kind(task)
        request = request_for(self._model, task)
        kind.questions += kind.votes
        kind.input_tokens += kind.votes * kind.model.tokens_of(request)
        kind.text_tokens += kind.votes * tokens.weigh(text)
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

    def _budget(self, analysis_type: AnalysisType) -> int:
        chunk_tokens = self._context.settings.pipeline.chunk_tokens
        return text_budget(self._model, self._task(analysis_type), chunk_tokens)
