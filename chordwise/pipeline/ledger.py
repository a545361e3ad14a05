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
from chordwise.storage.engine import persistently, reaching_database
from chordwise.storage.model_calls import ModelCall
from chordwise.storage.record import new_id

# An answer has been paid for: a restart of the database must not lose it.
_PATIENCE = timedelta(seconds=30)


class Ledger:
    """Writes the calls of one chunk, or of one synthesis (`chunk_id` is `None`)."""

    def __init__(
        self, sessions: sessionmaker[Session], job_id: uuid.UUID, chunk_id: uuid.UUID | None
    ) -> None:
        self._sessions = sessions
        self._job_id = job_id
        self._chunk_id = chunk_id

    def begin(self, start: CallStart) -> uuid.UUID:
        """Write a call that is about to be made."""
        call = ModelCall(
            id=new_id(),
            job_id=self._job_id,
            chunk_id=self._chunk_id,
            stage=start.stage.value,
            provider=start.provider,
            model=start.model,
            language_model=start.provider != EXTRACTIVE,
            prompt_version=start.prompt_version,
            attempt=start.attempt,
        )
        with reaching_database(), self._sessions.begin() as session:
            session.add(call)
        return call.id

    def finish(self, call_id: uuid.UUID, outcome: CallOutcome) -> None:
        """Complete the call's row."""
        known = {name: getattr(outcome, name) for name in CallOutcome.__dataclass_fields__}
        if outcome.finish_reason is not None:
            known["finish_reason"] = outcome.finish_reason.value
        known["finished_at"] = func.clock_timestamp()
        persistently(self._sessions, _PATIENCE, lambda s: model_calls.change(s, call_id, **known))


def record_verdict(
    sessions: sessionmaker[Session], completion: Completion, verdict: Verdict
) -> None:
    """Write beside a call what the check of its answer found."""
    if not completion.call_id:
        return
    call_id = uuid.UUID(completion.call_id)
    known = {"valid": verdict.valid, "quality": verdict.quality}
    persistently(sessions, _PATIENCE, lambda s: model_calls.change(s, call_id, **known))
