"""Asking a few of a quote's questions for real, to see how long the answers are."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from sqlalchemy import func
from sqlalchemy.orm import Session

from chordwise.domain import tokens
from chordwise.llm.model import EXTRACTIVE, Completion, CompletionRequest
from chordwise.llm.pricing import price_of
from chordwise.pipeline.context import ReadingContext
from chordwise.pipeline.models import Models
from chordwise.pipeline.quote import Gathered, Quote
from chordwise.pipeline.tallying import WorkKind
from chordwise.storage import model_calls
from chordwise.storage.engine import reaching_database
from chordwise.storage.record import new_id


def expected_cost(quote: Quote, gathered: Gathered) -> Decimal | None:
    """Return what the sample will cost by a quote made without it; `None` where it is unknown."""
    total = Decimal(0)
    for line, kind in zip(quote.lines, gathered.tally.kinds.values(), strict=True):
        cost = line.costs[line.lane]
        if cost is None:
            return None
        count = Decimal(line.questions) + Decimal(line.syntheses.typical)
        total += cost.high * len(kind.sample) / count if count else Decimal(0)
    return total


def ask(context: ReadingContext, gathered: Gathered) -> None:
    """Ask what was kept for it, and note the output tokens; each answer is a row of the ledger.

    Fallbacks are not asked: theirs would be other answers.

    Raises:
        ModelError: A question brought no answer.
        ConfigurationError: A model cannot be asked as it is configured.
        ServiceUnavailableError: The database cannot be reached.
    """
    alone = Models(context.settings.model_copy(update={"fallback": ()}))
    for key, kind in gathered.tally.kinds.items():
        gathered.observed[key] = list(_ask(context, alone, kind))


def _ask(context: ReadingContext, models: Models, kind: WorkKind) -> Iterator[int]:
    model = models.open(kind.model.name)
    for request in kind.sample:
        completion = model.complete(request)
        with reaching_database(), context.sessions.begin() as session:
            _record(session, kind, request, completion)
        known = completion.usage.output_tokens
        yield tokens.estimate(completion.text) if known is None else known


def _record(
    session: Session, kind: WorkKind, request: CompletionRequest, completion: Completion
) -> None:
    """Write the call down, of no job: the money is spent, and the next quote knows the answer."""
    profile, usage = kind.model.profile, completion.usage
    values = {
        "id": new_id(),
        "stage": request.task.stage.value,
        "provider": profile.provider,
        "model": profile.model,
        "language_model": profile.provider != EXTRACTIVE,
        "prompt_version": request.prompt_version,
        "attempt": request.attempt,
        "finished_at": func.clock_timestamp(),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cost_usd": price_of(kind.model.settings).cost_usd(completion),
        "service_tier": completion.service_tier or None,
        "response_length": len(completion.text),
        "finish_reason": completion.finish_reason.value,
        "response_id": completion.response_id or None,
    }
    model_calls.begin(session, values)
