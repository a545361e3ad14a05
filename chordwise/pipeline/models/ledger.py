"""The ledger of model calls, kept in PostgreSQL, each entry in a transaction of its own."""

from __future__ import annotations

import uuid
from datetime import timedelta
from decimal import Decimal

from sqlalchemy import func
from sqlalchemy.orm import Session, sessionmaker

from chordwise.domain.json_values import JsonObject
from chordwise.errors import LeaseLostError
from chordwise.llm.middleware.metered import CallOutcome, CallStart
from chordwise.llm.model import EXTRACTIVE, Completion, FinishReason
from chordwise.llm.pricing import CostBasis
from chordwise.pipeline.asking.check import Verdict
from chordwise.storage import chunk_leases, jobs, model_calls
from chordwise.storage.engine import persistently
from chordwise.storage.record import new_id

# Before anything is paid for, there is no reason to wait for long.
_BEGIN_PATIENCE = timedelta(seconds=15)


class Ledger:
    """Writes the calls of one chunk, of one synthesis (no chunk), or of a sample (no job either).

    What is known of an answer waits `patience` for a database that is away. With the `token` of a
    claim, no call begins once the claim is lost.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        patience: timedelta,
        job_id: uuid.UUID | None,
        chunk_id: uuid.UUID | None,
        token: uuid.UUID | None = None,
    ) -> None:
        self._sessions = sessions
        self._patience = patience
        self._job_id = job_id
        self._chunk_id = chunk_id
        self._token = token

    def begin(self, start: CallStart) -> uuid.UUID:
        """Write a call that is about to be made.

        Raises:
            LeaseLostError: The run is cancelled, or somebody else has taken the work over.
            ServiceUnavailableError: The database is away.
        """
        call_id = new_id()
        values = self._row(call_id, start)

        def write(session: Session) -> None:
            if not self._is_claimed(session):
                raise LeaseLostError("The run was cancelled, or the work was taken over.")
            model_calls.begin(session, values)

        persistently(self._sessions, _BEGIN_PATIENCE, write)
        return call_id

    def note_hit(self, start: CallStart, completion: Completion, latency_ms: int) -> uuid.UUID:
        """Write that the cache had the completion: no request, no tokens, no money."""
        call_id = new_id()
        known = hit_of(completion) | {"latency_ms": latency_ms}
        values = self._row(call_id, start) | known
        persistently(self._sessions, _BEGIN_PATIENCE, lambda s: model_calls.begin(s, values))
        return call_id

    def _is_claimed(self, session: Session) -> bool:
        """Tell whether the work is still ours; nobody takes it before the commit."""
        if self._token is None or self._job_id is None:
            return True
        if self._chunk_id is None:
            return jobs.holds_synthesis(session, self._job_id, self._token)
        return chunk_leases.holds(session, self._chunk_id, self._token)

    def _row(self, call_id: uuid.UUID, start: CallStart) -> dict[str, object]:
        return {
            "id": call_id,
            "job_id": self._job_id,
            "chunk_id": self._chunk_id,
            **row_of(start),
        }

    def finish(self, call_id: uuid.UUID, outcome: CallOutcome) -> None:
        """Complete the call's row."""
        known = {name: getattr(outcome, name) for name in CallOutcome.__dataclass_fields__}
        if outcome.finish_reason is not None:
            known["finish_reason"] = outcome.finish_reason.value
        if outcome.cost_basis is not None:
            known["cost_basis"] = outcome.cost_basis.value
        known["finished_at"] = func.clock_timestamp()
        persistently(
            self._sessions, self._patience, lambda s: model_calls.change(s, call_id, **known)
        )


def row_of(start: CallStart) -> JsonObject:
    """Return what the ledger says of a call before it is made, whoever makes it."""
    return {
        "stage": start.stage.value,
        "provider": start.provider,
        "model": start.model,
        "language_model": start.provider != EXTRACTIVE,
        "prompt_version": start.prompt_version,
        "attempt": start.attempt,
        "sample": start.sample,
        "tier": start.route.tier.value if start.route else None,
        "escalated": start.route.escalated if start.route else None,
    }


def hit_of(completion: Completion) -> dict[str, object]:
    """Return what the ledger says of an answer that took no request: no tokens, no money."""
    return {
        "cache_hit": True,
        "finished_at": func.clock_timestamp(),
        "input_tokens": 0,
        "output_tokens": 0,
        "cost_usd": Decimal(0),
        "cost_basis": CostBasis.NOT_BILLED.value,
        "response_length": len(completion.text),
        "response_id": completion.response_id or None,
        "finish_reason": completion.finish_reason.value,
        "refused": completion.finish_reason is FinishReason.REFUSAL,
    }


def record_verdict(
    sessions: sessionmaker[Session],
    patience: timedelta,
    completion: Completion,
    verdict: Verdict,
) -> None:
    """Write beside a call what the check of its answer found."""
    if not completion.call_id:
        return
    call_id = uuid.UUID(completion.call_id)
    known = {"valid": verdict.valid, "quality": verdict.quality}
    persistently(sessions, patience, lambda s: model_calls.change(s, call_id, **known))
