"""Quotes: the estimated tokens and cost of a run, before anything is stored or sent."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from decimal import Decimal

from sqlalchemy.orm import Session

from chordwise.domain import estimates, pictures, tokens
from chordwise.domain.analysis_tasks import AnalysisType, Stage
from chordwise.domain.estimates import NOTHING, Interval
from chordwise.domain.money import dollars
from chordwise.domain.pictures import Picture
from chordwise.domain.states import Lane
from chordwise.llm.prices import CostBasis, price_of
from chordwise.pipeline.intake import transcription
from chordwise.pipeline.intake.found_files import FileSource
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.models.model_client import CallContext
from chordwise.pipeline.quoting.tally import (
    ONLINE,
    Tally,
    TallyBuilder,
    UnaskedModel,
    WorkKind,
    assumed_pages,
)
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.readers.discovery import FoundFile
from chordwise.readers.reader import ReadDocument, Reader, Transcriber, UnreadDocument
from chordwise.readers.reader_output import Columns
from chordwise.settings import Settings
from chordwise.storage import model_calls
from chordwise.storage.model_calls import CallHistory
from chordwise.storage.record import copied


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The estimated tokens and cost of a run.

    `reused` jobs have a stored result, and `cached` questions a completion in the cache; both are
    free.

    `totals` has the sum for each lane; a line that is not available in a lane counts in its own.
    `total` is the cost of the run. A sum is `None` if a price is unknown. `transcription`, if any
    page has to be transcribed, is part of all sums.
    """

    documents: int
    duplicates: int
    unread: Sequence[UnreadDocument]
    jobs: int
    reused: int
    cached: int
    lines: Sequence[QuotedLine]
    totals: Mapping[str, Cost | None]
    total: Cost | None
    transcription: QuotedPages | None = None


def estimate(
    context: ReadingContext, documents: Iterable[ReadDocument | UnreadDocument], options: RunOptions
) -> Quote:
    """Return the quote for a run over these documents.

    Raises:
        ConfigurationError: The model is unknown, or its context is too small for any text.
    """
    return priced(context, gather(context, documents, options))


def estimate_files(
    context: ReadingContext, files: Iterable[FoundFile], options: RunOptions
) -> Quote:
    """Return the quote for a run over these files.

    Raises:
        ConfigurationError: The model is unknown, or its context is too small for any text.
    """
    return estimate(context, read_for(context, files, options), options)


def gather(
    context: ReadingContext,
    documents: Iterable[ReadDocument | UnreadDocument],
    options: RunOptions,
    sample: int = 0,
) -> Tally:
    """Render and count the questions of a run; keep `sample` requests of each kind.

    Raises:
        ConfigurationError: The model is unknown, or its context is too small for any text.
    """
    builder = TallyBuilder(context, options, sample)
    for document in documents:
        builder.add(document)
    return builder.finish()


def priced(context: ReadingContext, tally: Tally) -> Quote:
    """Return the quote for counted questions."""
    with context.database.read() as session:
        lines = [Pricing(session, kind).line() for kind in tally.kinds.values()]
    lanes = dict.fromkeys(lane for line in lines for lane in line.costs)
    pages = _pages(context.settings, tally.pages) if tally.pages else None
    first = [pages.cost] if pages else []
    return copied(
        Quote,
        tally,
        lines=lines,
        totals={lane: _sum([*first, *(_in_lane(line, lane) for line in lines)]) for lane in lanes},
        total=_sum([*first, *(_in_lane(line, line.lane) for line in lines)]),
        transcription=pages,
    )


def too_expensive(context: ReadingContext, options: RunOptions, files: Iterable[FoundFile]) -> str:
    """Return why a person has to confirm the expected cost of a run; empty if no one has to.

    No one has to if a budget limits it. The files are only read if they are large enough for such
    a cost; standard input cannot be read twice.

    Raises:
        ConfigurationError: The model is unknown, or its context is too small for any text.
    """
    budget = context.settings.budget
    capped = options.budget_usd or budget.usd_per_run or budget.usd_per_day
    if capped or any(file.path is None for file in files):
        return ""
    size = 0
    for file in files:
        with suppress(OSError):
            size += (file.status or file.path.stat()).st_size if file.path else 0
    if size * _most_usd_per_byte(context.settings, options) <= budget.confirm_usd:
        return ""
    total = estimate_files(context, files, options).total
    if total is None or total.typical <= budget.confirm_usd:
        return ""
    limit = dollars(budget.confirm_usd)
    return f"Expected cost: {amount(total)}, above budget.confirm_usd ({limit})."


# A byte of a compressed file may be several tokens of text, which prompts, votes and syntheses
# repeat.
_READ_PER_BYTE, _WRITTEN_PER_BYTE = 6, 1
_MANY = 100_000


def _most_usd_per_byte(settings: Settings, options: RunOptions) -> Decimal:
    """Return a rough upper limit of the cost of a file's byte; 0 without a known price."""
    vision = [settings.readers.vision] if settings.readers.vision else []
    costs = [
        UnaskedModel(settings, name, options.lane).cost_usd(
            _READ_PER_BYTE * _MANY, _WRITTEN_PER_BYTE * _MANY, ONLINE
        )
        for name in (*settings.selected_names(options.model), *vision)
        if price_of(settings.model_named(name)).basis is not CostBasis.FREE
    ]
    dearest = max((cost for cost in costs if cost is not None), default=Decimal(0))
    return dearest * len(options.types) * options.analysis.votes / _MANY


def _pages(settings: Settings, count: int) -> QuotedPages:
    """Return the tokens and cost of transcribing `count` pages of typical size and length."""
    name, edge = settings.readers.vision, settings.readers.max_vision_edge_pixels
    model = UnaskedModel(settings, name, Lane.ONLINE)
    page = Picture(number=1, data=b"", width=1, height=1)
    prompt = model.tokens_of(transcription.request_for(model.profile, page))
    shown = estimates.ASSUMED_PICTURE.times(pictures.estimated_tokens(edge))
    read, written = shown + _exactly(prompt), estimates.ASSUMED_PAGE
    bounds = zip(astuple(read), astuple(written), strict=True)
    costs = [model.cost_usd(*bound, model.lane_now) for bound in bounds]
    return QuotedPages(
        model=model.label,
        pages=count,
        input_tokens=read.times(count),
        output_tokens=written.times(count),
        cost=_cost([None if cost is None else cost * count for cost in costs]),
    )


def _in_lane(line: QuotedLine, lane: str) -> Cost | None:
    return line.costs[lane] if lane in line.costs else line.costs[line.lane]


def _sum(costs: Sequence[Cost | None]) -> Cost | None:
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(costs):
        return None
    return Cost(
        low=sum((cost.low for cost in known), Decimal(0)),
        typical=sum((cost.typical for cost in known), Decimal(0)),
        high=sum((cost.high for cost in known), Decimal(0)),
    )


SAMPLE, HISTORY, ASSUMED = "sample", "history", "assumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """An interval of US dollars."""

    low: Decimal
    typical: Decimal
    high: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotedPages:
    """The tokens and cost of transcribing pages; `cost` is `None` if the price is unknown."""

    model: str
    pages: int
    input_tokens: Interval
    output_tokens: Interval
    cost: Cost | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotedLine:
    """The tokens and cost of one model for one analysis type.

    `chunks` have at most `chunk_tokens`. `questions` counts the questions about them, `syntheses`
    those that join answers, and `critiques` those that critique or revise an answer. Their
    repetitions count in the tokens only.
    `basis` is the source of the output tokens: sample, history or assumed. `costs` has the lanes
    that the provider offers, `None` if the price is unknown; `lane` is the lane of the run.
    """

    analysis_type: AnalysisType
    model: str
    chunks: int
    chunk_tokens: int
    questions: int
    syntheses: Interval
    critiques: Interval
    input_tokens: Interval
    output_tokens: Interval
    basis: str
    observations: int
    counter: str
    counts_exactly: bool
    lane: str
    costs: Mapping[str, Cost | None]


class Pricing:
    """Estimates the line of a quote from the counted questions of one kind."""

    def __init__(self, session: Session, kind: WorkKind) -> None:
        self._session = session
        self._kind = kind
        self._model: UnaskedModel = kind.model
        self._analyzed = self._history(Stage.ANALYZE)
        self._joined = self._history(Stage.SYNTHESIZE)

    def line(self) -> QuotedLine:
        """Return the line."""
        kind, experience = self._kind, self._experience()
        known = SAMPLE if experience is self._kind.observed else HISTORY
        answers = self._answers()
        syntheses, material, joined = self._syntheses(answers)
        critiques, examined, revised = self._critiques(answers)
        calls = _exactly(kind.questions) + syntheses + critiques
        repeated = estimates.repeats(self._analyzed.questions, self._analyzed.repeated)
        read = _exactly(kind.input_tokens) + material + examined
        written = answers + joined + revised
        input_tokens = read + read.multiplied_by(repeated)
        output_tokens = written + written.multiplied_by(repeated)
        return QuotedLine(
            analysis_type=kind.analysis_type,
            model=self._model.label,
            chunks=kind.chunks,
            chunk_tokens=kind.chunk_tokens,
            questions=kind.questions,
            syntheses=syntheses,
            critiques=critiques,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            basis=known if experience else ASSUMED,
            observations=len(experience),
            counter=self._model.counter.name,
            counts_exactly=self._model.counter.is_exact,
            lane=self._model.lane,
            costs={
                lane: self._cost(calls, input_tokens, output_tokens, lane)
                for lane in self._model.lanes
            },
        )

    def _history(self, stage: Stage) -> CallHistory:
        profile = self._model.profile
        kind = self._kind.analysis_type
        return model_calls.read(self._session, kind, stage, profile.provider, profile.model)

    def _experience(self) -> Sequence[int]:
        if len(self._kind.observed) > 1:
            return self._kind.observed
        enough = len(self._analyzed.output_tokens) >= estimates.MIN_OBSERVATIONS
        return self._analyzed.output_tokens if enough else []

    def _answers(self) -> Interval:
        kind = self._kind
        if not kind.questions:
            return NOTHING
        if experience := self._experience():
            return estimates.predicted(experience, kind.questions)
        text_tokens = kind.text_tokens / kind.questions
        return self._assumed(text_tokens).times(kind.questions)

    def _assumed(self, text_tokens: float) -> Interval:
        if self._kind.fields:
            return estimates.ASSUMED_FIELD.times(self._kind.fields)
        limit = self._model.profile.max_output_tokens
        return estimates.assumed_answer_length(self._kind.analysis_type, text_tokens, limit)

    def _one_of(self, answers: Interval) -> Interval:
        """Return the tokens of one answer, given those of all."""
        questions = self._kind.questions
        return answers.times(1 / questions) if questions else self._assumed(0)

    def _syntheses(self, answers: Interval) -> tuple[Interval, Interval, Interval]:
        """Return the number of questions that join answers, and their input and output tokens."""
        kind, answer = self._kind, self._one_of(answers)
        joined = self._joined_answer(answer)
        low = kind.syntheses(answer.low, joined.low)
        typical = kind.syntheses(answer.typical, joined.typical)
        high = kind.syntheses(answer.high, joined.high)
        questions = _interval(low.questions, typical.questions, high.questions)
        frames = questions.times(kind.synthesis_frame)
        material = _interval(low.material_tokens, typical.material_tokens, high.material_tokens)
        return questions, frames + material, questions.multiplied_by(joined)

    def _critiques(self, answers: Interval) -> tuple[Interval, Interval, Interval]:
        """Return the number of critiques and revisions, and their input and output tokens."""
        kind = self._kind
        if not kind.critiques:
            return NOTHING, NOTHING, NOTHING
        answer, count = self._one_of(answers).times(kind.groups), _exactly(kind.critiques)
        read = answer.times(kind.critiques + kind.critiqued_answers)
        read += _exactly(kind.critique_tokens)
        share = estimates.ASSUMED_REVISIONS
        revisions = count.multiplied_by(share)
        written = count.multiplied_by(estimates.ASSUMED_CRITIQUE) + revisions.multiplied_by(answer)
        # A revision of a group repeats the text and the draft.
        revised = read.multiplied_by(share).times(kind.groups)
        return count + revisions.times(kind.groups), read + revised, written

    def _joined_answer(self, answer: Interval) -> Interval:
        """Return the tokens of a joined answer, which has the form of the answers that it joins."""
        known = self._joined.output_tokens
        if len(known) >= estimates.MIN_OBSERVATIONS:
            return estimates.predicted(known, 1)
        limit = self._model.profile.max_output_tokens
        return Interval(low=answer.low, typical=answer.typical, high=min(limit, 2 * answer.high))

    def _cost(self, calls: Interval, read: Interval, written: Interval, lane: str) -> Cost | None:
        bounds = zip(astuple(calls), astuple(read), astuple(written), strict=True)
        return _cost([self._cost_of(*bound, lane) for bound in bounds])

    def _cost_of(self, count: float, read: float, written: float, lane: str) -> Decimal | None:
        """Return the cost of average questions; the price may depend on the prompt's length."""
        if not count:
            return Decimal(0)
        cost = self._model.cost_usd(read / count, written / count, lane)
        return None if cost is None else cost * Decimal(count)


def _cost(bounds: Sequence[Decimal | None]) -> Cost | None:
    """Return the low, typical and high cost; `None` if a price is unknown."""
    low, typical, high = bounds
    if low is None or typical is None or high is None:
        return None
    return Cost(low=low, typical=typical, high=high)


def _exactly(number: float) -> Interval:
    return Interval(low=number, typical=number, high=number)


def _interval(low: float, typical: float, high: float) -> Interval:
    return Interval(low=min(low, typical, high), typical=typical, high=max(low, high))


def expected_cost(quote: Quote, tally: Tally) -> Decimal | None:
    """Return the upper estimate of the sample's cost; `None` if a price is unknown.

    The quote is one made without the sample. The sample is sent at once, so a run in the batch lane
    does not make it cheaper.
    """
    total = Decimal(0)
    for line, kind in zip(quote.lines, tally.kinds.values(), strict=True):
        cost = line.costs[kind.model.lane_now]
        if cost is None:
            return None
        count = Decimal(line.questions + line.syntheses.typical + line.critiques.typical)
        total += cost.high * len(kind.sample) / count if count else Decimal(0)
    return total


def ask_sample(context: ReadingContext, tally: Tally, *, fresh: bool) -> None:
    """Send the sampled requests and record the number of output tokens of each answer.

    The calls do not belong to runs. They obey the shared limits and the budget of the day, and are
    recorded in the ledger. Their completions are cached for a later run; with `fresh`, the cache is
    not used. Fallbacks are not asked, as their answers would differ.

    Raises:
        ModelError: A call returned no answer, or the budget of the day is used up.
        ConfigurationError: A model cannot be used as configured, or its price is unknown and there
            is a budget.
    """
    ledger = context.ledgers(fresh=fresh)()
    call_context = CallContext(ledger=ledger, cache=ledger.cache)
    for kind in tally.kinds.values():
        model = context.models.model_for(call_context, kind.model.name)
        for request in kind.sample:
            completion = model.complete(request)
            ledger.flush()
            known = completion.usage.output_tokens
            kind.observed.append(tokens.estimate(completion.text) if known is None else known)


def read_for(
    context: ReadingContext, files: Iterable[FoundFile], options: RunOptions
) -> Iterator[ReadDocument | UnreadDocument]:
    """Read each file as a run would; pages that a model would transcribe get typical texts."""
    settings = context.settings
    return read_all(settings, files, options.columns, assumed_pages(settings))


def read_all(
    settings: Settings,
    files: Iterable[FoundFile],
    columns: Columns,
    transcriber: Transcriber | None = None,
) -> Iterator[ReadDocument | UnreadDocument]:
    """Read each file as an analysis would; a transcriber reads the scans."""
    with Reader(settings.readers) as reader:
        source = FileSource(reader, sys.stdin.buffer)
        for file in files:
            yield from source.read(file, columns, transcriber=transcriber)


def members(estimate: Quote) -> dict[str, object]:
    """Return the members of the JSON document."""
    unread = [
        {"source": file.source, "outcome": file.error.outcome, "message": file.error.what}
        for file in estimate.unread
    ]
    values = {field.name: getattr(estimate, field.name) for field in fields(estimate)}
    return {**values, "unread": unread}


def amount(cost: Cost | None) -> str:
    """Return a cost with its interval."""
    if cost is None:
        return "unknown"
    if cost.low == cost.high:
        return dollars(cost.typical)
    return f"{dollars(cost.typical)} ({dollars(cost.low)} to {dollars(cost.high)})"
