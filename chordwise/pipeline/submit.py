"""Taking documents in: rows first, messages after; nothing found goes unaccounted."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from chordwise.domain.invisible_characters import HINT, REASON
from chordwise.domain.states import IntakeOutcome, JobStatus, RunStatus
from chordwise.domain.tasks import AnalysisType
from chordwise.errors import UsageError
from chordwise.llm.limits.permits import Priority
from chordwise.pipeline import budgets, following, lanes
from chordwise.pipeline.context import Context
from chordwise.pipeline.messages import FAN_OUT
from chordwise.pipeline.questions import options_to_json
from chordwise.pipeline.run_names import check_name
from chordwise.pipeline.run_options import RunOptions, answerable, identity, to_json
from chordwise.prompts import library
from chordwise.readers.reading import Columns, ReadDocument, UnreadDocument
from chordwise.storage import documents, intakes, jobs, outbox, prompt_versions, runs
from chordwise.storage.documents import Document
from chordwise.storage.engine import persistently
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job, JobFailure
from chordwise.storage.record import new_id
from chordwise.storage.runs import Run

PATIENCE = timedelta(seconds=20)
"""How long a person waits for a database that restarts, before being told."""
_CANCELLED = JobFailure(
    code="cancelled",
    message="The run was cancelled while it was taken in.",
    hint="`chordwise retry RUN` takes it up again.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenIn:
    """What became of one thing: its outcome, and how many of its jobs reuse a stored result."""

    outcome: IntakeOutcome
    jobs: int = 0
    reused: int = 0


Also: TypeAlias = Callable[[Session, uuid.UUID], None]


class Submission:
    """An open run that takes things in, one transaction each, until it is closed."""

    def __init__(self, context: Context, run_id: uuid.UUID, name: str, options: RunOptions) -> None:
        self.run_id = run_id
        self.name = name
        self._context = context
        self.options = answerable(context.settings, options)
        self._hashes = {each: identity(context, each, self.options) for each in options.types}
        self.lane = lanes.lane_for(context.settings, options.model, options.lane)
        self._found = 0

    @property
    def columns(self) -> Columns:
        """How tables are read."""
        return self.options.columns

    def asks_once(self, wanted: RunOptions) -> bool:
        """Tell whether votes or a critique were wanted of a model that can give neither."""
        given = self.options.analysis
        return (given.votes, given.critique) != (wanted.analysis.votes, wanted.analysis.critique)

    def take_in(self, found: ReadDocument | UnreadDocument, also: Also | None = None) -> TakenIn:
        """Store a document with its jobs and their messages, or why there is none.

        `also` writes more in the same transaction.

        Raises:
            ServiceUnavailableError: The database stayed away; nothing of this was stored, unless
                its last answer was lost.
        """
        intake_id = new_id()
        taken: list[TakenIn] = []

        def write(session: Session) -> None:
            if taken and intakes.exists(session, intake_id):
                return  # an earlier commit was made, and only its answer was lost
            taken[:] = [self._take_in(session, intake_id, found)]
            if also is not None:
                also(session, intake_id)

        persistently(self._context.sessions, PATIENCE, write)
        self._found += 1
        return taken[0]

    def close(self) -> None:
        """Declare that nothing more comes; only then can the run be finished."""
        persistently(
            self._context.sessions,
            PATIENCE,
            lambda session: runs.finish_intake(session, self.run_id, self._found),
        )

    def _take_in(
        self, session: Session, intake_id: uuid.UUID, found: ReadDocument | UnreadDocument
    ) -> TakenIn:
        runs.resume_intake(session, self.run_id)
        if isinstance(found, UnreadDocument):
            return self._refuse(session, intake_id, found)
        return self._accept(session, intake_id, found)

    def _refuse(self, session: Session, intake_id: uuid.UUID, found: UnreadDocument) -> TakenIn:
        error = found.error
        session.add(
            Intake(
                id=intake_id,
                run_id=self.run_id,
                source=found.source,
                sha256=found.sha256,
                byte_count=found.byte_count,
                outcome=error.outcome,
                reason=error.reason,
                message=error.what,
                hint=error.hint or None,
            )
        )
        return TakenIn(outcome=IntakeOutcome(error.outcome))

    def _accept(self, session: Session, intake_id: uuid.UUID, found: ReadDocument) -> TakenIn:
        document_id = documents.store(session, _document(found))
        again = intakes.has_document(session, self.run_id, document_id)
        outcome = IntakeOutcome.DUPLICATE if again else IntakeOutcome.ACCEPTED
        review = found.content.review_reason
        intake = Intake(
            id=intake_id,
            run_id=self.run_id,
            source=found.source,
            sha256=found.sha256,
            byte_count=found.byte_count,
            outcome=outcome,
            reason="same_content_in_run" if again else (REASON if review else None),
            message=review or None,
            hint=HINT if review else None,
            document_id=document_id,
        )
        session.add(intake)
        session.flush()
        if again:
            return TakenIn(outcome=outcome)
        reused = sum(
            self._add_job(session, intake.id, document_id, each) for each in self.options.types
        )
        return TakenIn(outcome=outcome, jobs=len(self.options.types), reused=reused)

    def _is_cancelled(self, session: Session) -> bool:
        """Tell whether somebody has called the run off; the lock keeps it so until the commit."""
        status = select(Run.status).where(Run.id == self.run_id).with_for_update(read=True)
        return session.scalar(status) == RunStatus.CANCELLED

    def _add_job(
        self,
        session: Session,
        intake_id: uuid.UUID,
        document_id: uuid.UUID,
        analysis_type: AnalysisType,
    ) -> bool:
        """Queue a job, or end it at once with a stored result; tell whether it was reused.

        One that is queued has its message, unless it follows another job.
        """
        job = Job(
            id=new_id(),
            run_id=self.run_id,
            intake_id=intake_id,
            document_id=document_id,
            analysis_type=analysis_type.value,
            options=options_to_json(self.options.analysis),
            options_hash=self._hashes[analysis_type],
            model=self.options.model,
            status=JobStatus.QUEUED,
            batch_until=lanes.batch_until(self._context.settings, self.lane),
        )
        session.add(job)
        session.flush()
        if self._is_cancelled(session):
            jobs.end(session, job, JobStatus.CANCELLED, _CANCELLED)
            return False
        follows = self.options.follows
        if not self.options.fresh and following.is_answered(session, job, follows=follows):
            return True
        if job.reused_from is None:
            outbox.put(session, FAN_OUT, job.id, reason="submitted")
        return False


def open_run(
    context: Context, options: RunOptions, now: datetime, run_id: uuid.UUID | None = None
) -> Submission:
    """Begin a run, or go on with that of `run_id`; `now` names it where the user does not.

    Raises:
        UsageError: The name is taken or could be an id, or the budget is none.
        ConfigurationError: The model is unknown, or its price where there is a budget.
        ServiceUnavailableError: The database cannot be reached.
    """
    context.models.identity(options.model)
    options = answerable(context.settings, options)
    cap_usd = budgets.cap_for(context.settings, options.model, options.budget_usd)
    run_id = run_id or new_id()
    name = options.name or f"{now:%Y%m%d-%H%M%S}-{run_id.hex[-4:]}"
    check_name(name)

    def write(session: Session) -> None:
        prompt_versions.register(session, library.released().values())
        if session.get(Run, run_id) is None:
            session.add(_run(context, run_id, name, options))
            session.flush()
            if cap_usd is not None:
                budgets.change_cap(session, run_id, cap_usd)

    try:
        persistently(context.sessions, PATIENCE, write)
    except IntegrityError as error:
        raise UsageError(
            f"There is a run named “{name}” already.", "Choose another --run-name."
        ) from error
    return Submission(context, run_id, name, options)


def _run(context: Context, run_id: uuid.UUID, name: str, options: RunOptions) -> Run:
    return Run(
        id=run_id,
        name=name,
        options=to_json(options),
        type_count=len(options.types),
        priority=Priority.NIGHTLY if options.nightly else Priority.INTERACTIVE,
        use_cache=options.use_cache and not options.fresh,
        lane=lanes.lane_for(context.settings, options.model, options.lane),
    )


def _document(found: ReadDocument) -> Document:
    content = found.content
    return Document(
        source=found.source,
        media_type=content.media_type,
        title=content.title or None,
        text=content.text,
        normalization={
            "nul_removed": content.nul_removed,
            "surrogates_replaced": content.surrogates_replaced,
            "line_ends_changed": content.line_ends_changed,
            "encoding": content.encoding,
            "pages": content.pages,
            "pages_unread": content.pages_unread,
            "pages_scanned": content.pages_scanned,
            "invisible_characters": content.invisible_characters + content.invisible_removed,
            "invisible_removed": content.invisible_removed,
        },
    )
