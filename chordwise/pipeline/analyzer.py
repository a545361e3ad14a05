"""The library API: analyzes a text in the current process, without any server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from chordwise import settings as settings_module
from chordwise.domain import chunking, document_flags, facts, grounding, items, missing_rows, trust
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.domain.answers import Answer
from chordwise.domain.checks import FailedCheck
from chordwise.domain.critique import Critique
from chordwise.domain.document_flags import Flag
from chordwise.domain.facts import Fact
from chordwise.domain.grounding import Source
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.missing_rows import MissingRows
from chordwise.domain.places import Places, located
from chordwise.domain.text_normalization import normalize
from chordwise.domain.validation import check_schema
from chordwise.errors import ModelError, UsageError
from chordwise.llm.model import EXTRACTIVE, ChatModel
from chordwise.pipeline.asking import Question, ask
from chordwise.pipeline.asking.assessment import AssessedAnswer
from chordwise.pipeline.asking.critique import examine, unexamined
from chordwise.pipeline.asking.merge import Synthesis, Synthesizer
from chordwise.pipeline.asking.question import ONE_PROMPT, policy_of, text_budget
from chordwise.pipeline.models.model_client import Models
from chordwise.readers.reader import Reader, ReadText, UnreadDocument
from chordwise.settings.profiles import checked_profile
from chordwise.telemetry.logging import configure_library


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisRequest:
    """A text, or the `path` of a file that contains it, and the question about it.

    `labels` are the permitted labels of a classification, and `label_descriptions` are their
    meanings; `schema` is the JSON Schema of an extraction. `answer_language` is the tag of the
    language of the answer, such as `de`. Values whose claimed confidence is below
    `confidence_threshold` (0 to 1), if it is given, need review. `votes` is how many times each
    question is asked. With `critique` the answer is examined against
    `principles`, or against the default ones.
    """

    text: str = ""
    path: str | os.PathLike[str] | None = None
    analysis_type: AnalysisType = AnalysisType.SUMMARY
    specific_instructions: str = ""
    labels: tuple[str, ...] = ()
    label_descriptions: Mapping[str, str] = field(default_factory=dict)
    answer_language: str = ""
    schema: JsonObject | None = None
    confidence_threshold: float | None = None
    votes: int = 1
    critique: bool = False
    principles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The answer to a request.

    `output` has the shape that is documented for the analysis type; `facts` lists its values.
    Offsets count characters of `text`, which is the text of the request after normalization;
    `flags` are its suspicious passages, and `review_reason` is why the answer needs review.
    `merged_without_model` is the reason that the parts of a long text were merged by rule; it is
    empty otherwise. `agreement` is the degree to which the samples of a vote agreed, and `critique`
    is the result of the critique; both are `None` if not requested. `missing_rows` are the lists
    that lack rows of the parts or of records in the text, and `coverage` is the share of their rows
    that is in the output. `row_counts` are the lists of the output with their row counts.
    `missing_fields` is why fields of the schema have no valid answer; it is empty otherwise.
    `failed_checks` are the `x-checks` of the schema that the output does not pass. `transcribed_by`
    is the model that read the pages of a scan, or `tesseract`; it is empty if the file contained
    all of the text.
    """

    text: str
    output: JsonObject
    facts: tuple[Fact, ...]
    confidence: float
    quality: float
    coverage: float
    needs_review: bool
    chunk_count: int
    provider: str
    model: str
    language_model: bool
    prompt_version: str
    merged_without_model: str = ""
    review_reason: str = ""
    flags: tuple[Flag, ...] = ()
    agreement: float | None = None
    critique: Critique | None = None
    missing_rows: tuple[MissingRows, ...] = ()
    missing_fields: str = ""
    row_counts: Sequence[JsonValue] = ()
    failed_checks: tuple[FailedCheck, ...] = ()
    transcribed_by: str = ""

    @property
    def is_partial(self) -> bool:
        """Whether rows or fields are missing, or the parts were merged by rule."""
        reason = self.merged_without_model or self.missing_fields
        return bool(reason or missing_rows.losses(self.missing_rows))


class DocumentAnalyzer:
    """Analyzes one text at a time with one model; safe to share between threads.

    `model` is a `ChatModel`, the name of a model in the settings, or `provider/model`.
    """

    def __init__(
        self, model: ChatModel | str = EXTRACTIVE, *, chunk_tokens: int | None = None
    ) -> None:
        configure_library()
        self._policy = ONE_PROMPT
        if isinstance(model, str):
            settings = settings_module.load()
            self._policy = policy_of(settings)
            model = Models(settings).open(model)
        self._model = model
        self._chunk_tokens = chunk_tokens

    def analyze_document(self, request: AnalysisRequest) -> Analysis:
        """Return the analysis of a text; a long text is split into chunks and synthesized.

        Raises:
            UsageError: There is no text, or both a text and a path, or a value is invalid.
            ReadError: The file cannot be read.
            ConfigurationError: The prompt alone fills the model's context.
            ModelError: The model returned no usable answer; the subclass gives the reason.
        """
        read = _read(request)
        text, places = read.text, Places(read.places)
        if not text.strip():
            raise UsageError("The text is empty.")
        task = _task(request)
        parts = chunking.split(text, *text_budget(self._model, task, self._chunk_tokens))
        document = Question(model=self._model, task=task, source=Source(text), policy=self._policy)
        synthesizer = Synthesizer(document=document)
        drafts = (ask(synthesizer.question_about(part.start_char, part.end_char)) for part in parts)
        answers = [
            replace(answer, output=grounding.regrounded(answer.output, document.source))
            for answer in drafts
        ]
        synthesis = synthesizer.synthesize(answers)
        examined = _examined(synthesizer, synthesis, parts, places)
        analysis = _analysis(task, examined, synthesis.error, (text, places), answers)
        reason = read.review_reason
        return replace(
            analysis,
            needs_review=analysis.needs_review or bool(reason),
            review_reason=" ".join(filter(None, (reason, analysis.review_reason))),
            flags=read.flags,
            transcribed_by=read.transcribed_by,
        )


def _read(request: object) -> ReadText:
    """Return the text of the request; a separate process reads it if it is in a file."""
    if not isinstance(request, AnalysisRequest):
        hint = "Pass AnalysisRequest(text=…) or AnalysisRequest(path=…)."
        raise UsageError("analyze_document takes an AnalysisRequest.", hint)
    if request.path is None:
        normalized = normalize(request.text)
        return ReadText(
            text=normalized.text,
            media_type="text/plain",
            invisible_removed=normalized.invisible_removed,
            hiding_removed=normalized.hiding_removed,
            flags=document_flags.flags(normalized.text, removed=normalized.runs),
        )
    if request.text:
        raise UsageError("Both a text and a path are given.", "Give one of them.")
    settings = settings_module.load()
    transcriber = None
    if settings.readers.vision:
        from chordwise.pipeline.intake.transcription import (  # noqa: PLC0415 - loads the tables
            ModelTranscriber,
        )

        transcriber = ModelTranscriber(settings, Models(settings))
    with Reader(settings.readers) as reader:
        document = reader.read(Path(request.path), transcriber=transcriber)
    if isinstance(document, UnreadDocument):
        raise document.error
    return document.content


def _examined(
    synthesizer: Synthesizer,
    synthesis: Synthesis,
    parts: Sequence[chunking.TextChunk],
    places: Places,
) -> AssessedAnswer:
    spans = [(part.start_char, part.end_char) for part in parts]
    task, text = synthesizer.task, synthesizer.document.source.text
    try:
        answer = examine(synthesizer, synthesis, spans[0])
    except ModelError as error:  # there is no later attempt
        answer = unexamined(synthesis.answer, task, error)
    return answer.with_unread_records(text, task, spans, missing_rows.naming(lambda: places, spans))


def _task(request: AnalysisRequest) -> AnalysisTask:
    checked_profile({name: getattr(request, name) for name in ("confidence_threshold", "votes")})
    options = AnalysisOptions(
        instructions=request.specific_instructions,
        labels=request.labels,
        label_descriptions=request.label_descriptions,
        answer_language=request.answer_language,
        schema=None if request.schema is None else check_schema(request.schema),
        confidence_threshold=request.confidence_threshold,
        votes=request.votes,
        critique=request.critique,
        principles=request.principles,
    )
    if request.analysis_type == AnalysisType.EXTRACTION:
        items.check(options)
    return AnalysisTask(analysis_type=request.analysis_type, stage=Stage.ANALYZE, options=options)


def _analysis(
    task: AnalysisTask,
    examined: AssessedAnswer,
    error: ModelError | None,
    document: tuple[str, Places],
    parts: Sequence[Answer],
) -> Analysis:
    answer, (text, places) = examined.answer, document
    analysis = analysis_for(task.analysis_type)
    output = located(analysis.complete(answer.output, task.options), places)
    confidence, counts, doubts = examined.assessment([part.output for part in parts], task)
    by_path = trust.by_path(doubts, output, task.analysis_type)
    stated = tuple(trust.with_doubts(facts.facts(output, analysis), by_path))
    needs_review = trust.WHOLE in by_path or any(
        trust.is_to_check(fact.value, fact.doubts) for fact in stated
    )
    return Analysis(
        text=text,
        output=output,
        facts=stated,
        confidence=confidence,
        quality=examined.quality(task),
        coverage=missing_rows.share(answer.missing_rows),
        needs_review=needs_review,
        review_reason=" ".join(filter(None, (doubt.sentence for doubt in doubts))),
        chunk_count=len(parts),
        provider=answer.provider,
        model=answer.model,
        language_model=answer.provider != EXTRACTIVE,
        prompt_version=answer.prompt_version,
        merged_without_model=error.what if error else "",
        agreement=answer.agreement,
        critique=examined.critique,
        missing_rows=answer.missing_rows,
        missing_fields=answer.missing_fields,
        row_counts=counts,
        failed_checks=examined.failed_checks(task),
    )
