"""Asking a few of a quote's questions for real, to see how long the answers are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

from chordwise.domain import tokens
from chordwise.llm.model import ChatModel
from chordwise.pipeline.models import answer_cache
from chordwise.pipeline.models.budgets import DayBudget
from chordwise.pipeline.models.client import Asking
from chordwise.pipeline.models.ledger import Ledger
from chordwise.pipeline.quoting.quote import Gathered, Quote
from chordwise.pipeline.quoting.tally import WorkKind
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.storage.chunk_work import CallStore
from chordwise.storage.record import new_id


def expected_cost(quote: Quote, gathered: Gathered) -> Decimal | None:
    """Return what the sample will cost by a quote made without it; `None` where it is unknown.

    It is asked at once, whatever the lane of the run.
    """
    total = Decimal(0)
    for line, kind in zip(quote.lines, gathered.tally.kinds.values(), strict=True):
        cost = line.costs[kind.model.lane_now]
        if cost is None:
            return None
        count = sum(
            map(Decimal, (line.questions, line.syntheses.typical, line.critiques.typical)),
            Decimal(0),
        )
        total += cost.high * len(kind.sample) / count if count else Decimal(0)
    return total


def ask_sample(context: ReadingContext, gathered: Gathered, *, fresh: bool) -> None:
    """Ask what was kept for it, and note the output tokens.

    The calls belong to no run: they keep to the limits that all workers share and to the budget of
    the day, have their rows in the ledger, and a run that asks the same later uses the answers
    again; with `fresh`, none that is stored counts. Fallbacks are not asked: theirs would be other
    answers.

    Raises:
        ModelError: A question brought no answer, or the day has no money for it.
        ConfigurationError: A model cannot be asked as it is configured, or not within a budget.
    """
    asking = _asking(context, fresh=fresh)
    for key, kind in gathered.tally.kinds.items():
        model = context.models.asked_by(asking, kind.model.name)
        gathered.observed[key] = list(_ask(model, kind))


def _asking(context: ReadingContext, *, fresh: bool) -> Asking:
    settings, database = context.settings, context.database
    patience = timedelta(seconds=settings.pipeline.database_outage_timeout_seconds)
    return Asking(
        ledger=Ledger(enter=CallStore(database).enter, patience=patience),
        budget=DayBudget(settings, database),
        cache=None if fresh else answer_cache.stored_completions(settings, database, new_id()),
    )


def _ask(model: ChatModel, kind: WorkKind) -> Iterator[int]:
    for request in kind.sample:
        completion = model.complete(request)
        known = completion.usage.output_tokens
        yield tokens.estimate(completion.text) if known is None else known
