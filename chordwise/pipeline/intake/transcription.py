"""Transcribes the pages of scans and images with the model of `readers.vision`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from chordwise.domain import json_values, tokens
from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType, Stage
from chordwise.domain.json_values import JsonObject
from chordwise.domain.pictures import Picture
from chordwise.domain.prompts import render_transcription
from chordwise.errors import ModelError, PausingError, RefusedError, TransientError
from chordwise.llm.limits.permits import Priority
from chordwise.llm.model import CompletionRequest, ModelProfile
from chordwise.pipeline.asking.check import RecordCheck
from chordwise.pipeline.asking.question import content_of
from chordwise.pipeline.models.ledger import Ledger
from chordwise.pipeline.models.model_client import CallContext, Models
from chordwise.pipeline.runtime.context import Context
from chordwise.prompts import library
from chordwise.readers import failures
from chordwise.readers.reader import Transcriber
from chordwise.settings import Settings
from chordwise.storage import budgets
from chordwise.storage.runs import Run

SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "is_legible": {"type": "boolean"}},
    "required": ["text", "is_legible"],
    "additionalProperties": False,
}
_PAGES_AT_ONCE = 4
_NOT_LEGIBLE = RefusedError(
    "it says that nothing on it is legible.", "Check the page, and scan it again."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContext:
    """The caller on whose behalf a page is read, and the record of the check of its answer.

    The defaults are for a library without a database.
    """

    call_context: CallContext = field(default_factory=CallContext)
    record_check: RecordCheck = lambda *_: None


def for_run(context: Context, run: Run, require: Callable[[], None]) -> Transcriber | None:
    """Return the transcriber of a run's intake; `None` if the settings name no vision model.

    The cache is always used for pages, whatever the options of the run: a file that is taken in
    again then yields the same document at no cost.
    """
    settings = context.settings
    if not settings.readers.vision:
        return None

    def context_for(source: str) -> PageContext:
        is_limited = settings.budget.usd_per_day is not None
        if not is_limited:
            with context.database.read() as session:
                is_limited = budgets.is_capped(session, run.id)
        ledger = Ledger(
            enter=context.stores.chunks.enter,
            settings=settings,
            is_limited=is_limited,
            run_id=run.id,
            source=source,
            completions=context.stores.completions,
        )
        priority = Priority(run.priority)
        call_context = CallContext(ledger=ledger, priority=priority, cache=ledger.cache)
        return PageContext(call_context=call_context, record_check=ledger.check)

    return ModelTranscriber(settings, context.models, context_for, require)


class ModelTranscriber:
    """Reads pages with the vision model, several concurrently; a `Transcriber` of the readers.

    `context_for` returns the page context for the source of a document. It is called for each page,
    because a ledger belongs to one thread. `require` is called before each page, and raises if the
    document is no longer wanted.
    """

    def __init__(
        self,
        settings: Settings,
        models: Models,
        context_for: Callable[[str], PageContext] = lambda _source: PageContext(),
        require: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = settings.readers.vision
        model = settings.model_named(self._name)
        self._label = f"{model.provider}/{model.model}"
        self._models = models
        self._context_for = context_for
        self._require = require
        self._at_once = min(_PAGES_AT_ONCE, settings.worker.concurrency)

    @property
    def model(self) -> str:
        """The provider and model, as `provider/model`."""
        return self._label

    def transcribe(self, pictures: Iterator[Picture], source: str) -> Mapping[int, str]:
        """Return the texts of pages of a document, by page number.

        Raises:
            ReadError: The model cannot read a page, or refuses to.
            ModelError: The model is unavailable or paused, so that no page can be read now.
            LeaseLostError: Another process takes the document in.
            RunCancelledError: The run is cancelled.
            ServiceUnavailableError: The database cannot be reached.
            ConfigurationError: The model cannot be used as configured.
        """
        texts: dict[int, str] = {}
        with ThreadPoolExecutor(self._at_once, "transcribing") as threads:
            while batch := list(islice(pictures, self._at_once)):
                transcripts = threads.map(partial(self._read, source), batch)
                texts.update(zip((picture.number for picture in batch), transcripts, strict=True))
        return texts

    def _read(self, source: str, picture: Picture) -> str:
        self._require()
        context = self._context_for(source)
        model = self._models.model_for(context.call_context, self._name)
        try:
            # Lenient parsing could truncate the text.
            request = request_for(model.profile, picture)
            answer = content_of(model, request, dict, context.record_check, lenient=False)
        except ModelError as error:
            if isinstance(error, TransientError | PausingError):
                raise
            raise failures.vision_failed(picture.number, error) from error
        if answer["is_legible"] is not True:
            raise failures.vision_failed(picture.number, _NOT_LEGIBLE)
        return json_values.text(answer["text"])


def request_for(profile: ModelProfile, picture: Picture) -> CompletionRequest:
    """Return the request for a page, with the largest output limit that the model permits."""
    template = library.latest(library.TRANSCRIPTION)
    prompt = render_transcription(template, SCHEMA)
    prompt_tokens = tokens.estimate(prompt.system + prompt.user) + picture.estimated_tokens
    room = max(profile.context_tokens - prompt_tokens, profile.max_output_tokens)
    return CompletionRequest(
        task=AnalysisTask(analysis_type=AnalysisType.EXTRACTION, stage=Stage.TRANSCRIBE),
        system=prompt.system,
        user=prompt.user,
        schema=SCHEMA,
        schema_name=library.TRANSCRIPTION,
        prompt_version=template.version,
        max_output_tokens=min(profile.output_ceiling, room),
        pictures=(picture,),
    )
