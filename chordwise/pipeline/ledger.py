"""The ledger of model calls, kept in PostgreSQL, each entry in a transaction of its own."""

from __future__ import annotations

import uuid
from datetime import timedelta

from sqlalchemy import func
from sqlalchemy.orm import Session, sessionmaker

from chordwise.llm.middleware.metered import CallOutcome, CallStart
from chordwise.llm.model import EXTRACTIVE, Completion
from chordwise.pipeline.answering import Verdict
from chordwise.storage import model_calls
from chordwise.storage.engine import persistently
from chordwise.storage.record import new_id

# Before anything is paid for, there is no reason to wait for long.
_BEGIN_PATIENCE = timedelta(seconds=15)


class Ledger:
    """Writes the calls of one chunk, or of one synthesis (`chunk_id` is `None`).

    What is known of an answer waits `patience` for a database that is away.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        patience: timedelta,
        job_id: uuid.UUID,
        chunk_id: uuid.UUID | None,
    ) -> None:
        self._sessions = sessions
        self._patience = patience
        self._job_id = job_id
        self._chunk_id = chunk_id

    def begin(self, start: CallStart) -> uuid.UUID:
        """Write a call that is about to be made."""
        call_id = new_id()
        values = {
            "id": call_id,
            "job_id": self._job_id,
            "chunk_id": self._chunk_id,
            "stage": start.stage.value,
            "provider": start.provider,
            "model": start.model,
            "language_model": start.provider != EXTRACTIVE,
            "prompt_version": start.prompt_version,
            "attempt": start.attempt,
        }
        persistently(self._sessions, _BEGIN_PATIENCE, lambda s: model_calls.begin(s, values))
        return call_id

    def finish(self, call_id: uuid.UUID, outcome: CallOutcome) -> None:
        """Complete the call's row."""
        known = {name: getattr(outcome, name) for name in CallOutcome.__dataclass_fields__}
        if outcome.finish_reason is not None:
            known["finish_reason"] = outcome.finish_reason.value
        known["finished_at"] = func.clock_timestamp()
        persistently(
            self._sessions, self._patience, lambda s: model_calls.change(s, call_id, **known)
        )


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
