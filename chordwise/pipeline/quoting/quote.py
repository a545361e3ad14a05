"""Quoting: what a run would take and cost, before anything is stored or asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from chordwise.domain.tasks import AnalysisType
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.models.client import Models
from chordwise.pipeline.quoting.lines import Cost, Pricing, QuotedLine
from chordwise.pipeline.quoting.tallying import Tally, Tallying
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.readers.reading import ReadDocument, UnreadDocument
from chordwise.settings import Settings
from chordwise.storage.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoter:
    """A context for quoting where none to work in is open."""

    settings: Settings
    database: Database
    models: Models


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a run would take; `reused` jobs have a stored result and cost nothing.

    `totals` sums each lane, with what a provider does not offer in that lane taken as the run asks
    it; `total` is what the run would cost. `None` where a price is unknown.
    """

    documents: int
    duplicates: int
    unread: Sequence[UnreadDocument]
    jobs: int
    reused: int
    lines: Sequence[QuotedLine]
    totals: Mapping[str, Cost | None]
    total: Cost | None


@dataclass(slots=True, kw_only=True)
class Gathered:
    """What was read and counted, and the output tokens that a sample has shown.

    The latter by analysis type and name of the model.
    """

    tally: Tally
    observed: dict[tuple[AnalysisType, str], list[int]] = field(default_factory=dict)


def estimate(
    context: ReadingContext, found: Iterable[ReadDocument | UnreadDocument], options: RunOptions
) -> Quote:
    """Return what a run over these documents would take and cost.

    Raises:
        ConfigurationError: There is no such model, or no text fits it.
        ServiceUnavailableError: The database cannot be reached.
    """
    return priced(context, gather(context, found, options))


def gather(
    context: ReadingContext,
    found: Iterable[ReadDocument | UnreadDocument],
    options: RunOptions,
    sample: int = 0,
) -> Gathered:
    """Render and count the questions of a run; keep `sample` of each kind for asking them.

    Raises:
        ConfigurationError: There is no such model, or no text fits it.
        ServiceUnavailableError: The database cannot be reached.
    """
    tallying = Tallying(context, options, sample)
    for each in found:
        tallying.add(each)
    return Gathered(tally=tallying.tally)


def priced(context: ReadingContext, gathered: Gathered) -> Quote:
    """Return the quote for what was gathered.

    Raises:
        ServiceUnavailableError: The database cannot be reached.
    """
    tally = gathered.tally
    with context.database.read() as session:
        lines = [
            Pricing(session, kind, gathered.observed.get(key, [])).line()
            for key, kind in tally.kinds.items()
        ]
    lanes = dict.fromkeys(lane for line in lines for lane in line.costs)
    return Quote(
        documents=tally.documents,
        duplicates=tally.duplicates,
        unread=tally.unread,
        jobs=tally.jobs,
        reused=tally.reused,
        lines=lines,
        totals={lane: _sum([_in_lane(line, lane) for line in lines]) for lane in lanes},
        total=_sum([_in_lane(line, line.lane) for line in lines]),
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
