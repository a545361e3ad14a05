"""Taking documents in: rows first, messages after; nothing found goes unaccounted."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from threading import Lock
from typing import TypeAlias

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from chordwise.domain.invisible_characters import HINT, REASON
from chordwise.domain.lanes import Lane
from chordwise.domain.states import IntakeOutcome, JobStatus, RunStatus
from chordwise.domain.tasks import AnalysisType
from chordwise.errors import LeaseLostError, RunCancelledError, UsageError
from chordwise.llm.limits.permits import Priority
from chordwise.pipeline.asking.questions import options_to_json
from chordwise.pipeline.intake.run_options import (
    RunOptions,
    answerable,
    check_name,
    from_json,
    identity,
    to_json,
)
from chordwise.pipeline.jobs import shared_jobs
from chordwise.pipeline.models import budgets, lanes
from chordwise.pipeline.runtime.context import PATIENCE, Context
from chordwise.pipeline.runtime.messages import FAN_OUT
from chordwise.prompts import library
from chordwise.readers.reading import Columns, ReadDocument, UnreadDocument
from chordwise.storage import (
    documents,
    intake_leases,
    intakes,
    listed_files,
    outbox,
    prompt_versions,
)
from chordwise.storage.documents import Document
from chordwise.storage.engine import persistently, reaching_database
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.listed_files import Entry, ListedFile
from chordwise.storage.record import new_id
from chordwise.storage.runs import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenIn:
    """What became of one thing: its outcome, and how many of its jobs reuse a stored result."""

    outcome: IntakeOutcome
    jobs: int = 0
    reused: int = 0


Also: TypeAlias = Callable[[Session, uuid.UUID], None]
Guard: TypeAlias = Callable[[Session], None]


def unguarded(_session: Session) -> None:
    """Let every transaction write."""


class Submission:
    """An open run that takes things in, one transaction each, until it is closed.

    It holds the lease of the run's intake with `token`. `guard` is called first in each
    transaction, and raises where this process must not write any more. One that `is_resumed` goes
    on with the list of a run that was interrupted.
    """

    def __init__(
        self,
        context: Context,
        run: Run,
        token: uuid.UUID,
        guard: Guard = unguarded,
        *,
        is_resumed: bool = False,
    ) -> None:
        self.run_id = run.id
        self.name = run.name
        self.is_resumed = is_resumed
        self._context = context
        self._token = token
        self._guard = guard
        self.options = answerable(context.settings, from_json(run.options, run.name))
        self._hashes = {each: identity(context, each, self.options) for each in self.options.types}
        self.lane = Lane(run.lane)
        self._unlisted = 0
        self._turn = Lock()
        context.leases.keep_intake(token)

    @property
    def columns(self) -> Columns:
        """How tables are read."""
        return self.options.columns

    def asks_once(self, wanted: RunOptions) -> bool:
        """Tell whether votes or a critique were wanted of a model that can give neither."""
        given = self.options.analysis
        return (given.votes, given.critique) != (wanted.analysis.votes, wanted.analysis.critique)

    def enlist(self, entry: Entry, also: Also | None = None) -> uuid.UUID:
        """Put one more thing on the list of the run; return the id of its intake.

        Raises:
            LeaseLostError: Another process takes in for this run.
            ServiceUnavailableError: The database stayed away.
        """
        stored: list[uuid.UUID] = []

        def write(session: Session) -> None:
            if stored and intakes.exists(session, stored[0]):
                return
            self._require_lease(session)
            stored[:] = listed_files.add(session, self.run_id, [entry])
            if also is not None:
                also(session, stored[0])

        with self._turn:
            persistently(self._context.sessions, PATIENCE, write)
        return stored[0]

    def untaken(self) -> Iterator[ListedFile]:
        """Yield what is left on the list, in its order.

        Raises:
            ServiceUnavailableError: The database cannot be reached.
        """
        after = -1
        while True:
            with reaching_database(), self._context.sessions() as session:
                some = listed_files.of_run(session, self.run_id, after)
            if not some:
                return
            yield from some
            after = some[-1].position

    def take_in(
        self,
        found: ReadDocument | UnreadDocument,
        also: Also | None = None,
        *,
        of: uuid.UUID | None = None,
        is_last: bool = True,
    ) -> TakenIn:
        """Store a document with its jobs and their messages, or why there is none.

        `also` writes more in the same transaction. `of` is the intake of the entry on the list in
        which it was found: the entry is taken off with the last document in it. Threads take turns,
        so that the same content is taken in once.

        Raises:
            RunCancelledError: The run is cancelled; nothing of this was stored.
            LeaseLostError: Another process takes in for this run; nothing of this was stored.
            ServiceUnavailableError: The database stayed away; nothing of this was stored, unless
                its last answer was lost.
        """
        intake_id = new_id()
        taken: list[TakenIn] = []

        def write(session: Session) -> None:
            if taken and intakes.exists(session, intake_id):
                return  # an earlier commit was made, and only its answer was lost
            taken[:] = [self._take_in(session, intake_id, found)]
            if of is not None:
                (listed_files.remove if is_last else listed_files.note_taken)(session, of)
            if also is not None:
                also(session, intake_id)

        with self._turn:
            persistently(self._context.sessions, PATIENCE, write)
            self._unlisted += of is None
        return taken[0]

    def close(self) -> None:
        """Declare that nothing more comes from here.

        Only a run of whose list nothing is left can be finished; another one is interrupted.

        Raises:
            ServiceUnavailableError: The database stayed away.
        """
        self._context.leases.drop_intake(self._token)
        persistently(
            self._context.sessions,
            PATIENCE,
            lambda session: intake_leases.give_back(
                session, self.run_id, self._token, self._unlisted
            ),
        )

    def has_lease(self) -> bool:
        """Tell whether this is still the one that takes in for an open run.

        Raises:
            ServiceUnavailableError: The database cannot be reached.
        """
        with reaching_database(), self._context.sessions() as session:
            run = session.get_one(Run, self.run_id)
            return run.intake_token == self._token and run.status != RunStatus.CANCELLED

    def _require_lease(self, session: Session) -> None:
        self._guard(session)
        status, token = intake_leases.locked(session, self.run_id)
        if status == RunStatus.CANCELLED:
            raise RunCancelledError(
                f"The run “{self.name}” is cancelled and takes nothing more in.",
                f"`chordwise retry {self.name}` analyzes what was taken in before, and "
                f"`chordwise resume {self.name}` takes in the rest then.",
            )
        if token != self._token:
            raise LeaseLostError(
                f"The run {self.name} was taken over by another process.",
                "`chordwise runs RUN` says how far it is.",
            )

    def _take_in(
        self, session: Session, intake_id: uuid.UUID, found: ReadDocument | UnreadDocument
    ) -> TakenIn:
        self._require_lease(session)
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
        follows = self.options.follows
        if not self.options.fresh and shared_jobs.is_answered(session, job, follows=follows):
            return True
        if job.reused_from is None:
            outbox.put(session, FAN_OUT, job.id, reason="submitted")
        return False


def open_run(
    context: Context,
    options: RunOptions,
    now: datetime,
    found: Sequence[Entry] = (),
    guard: Guard = unguarded,
) -> Submission:
    """Begin a run with the list of what was found; `now` names it where the user does not.

    Both are stored in one transaction, so that there is no run with half a list.

    Raises:
        UsageError: The name is taken or could be an id, or the budget is none.
        ConfigurationError: The model is unknown, or its price where there is a budget.
        ServiceUnavailableError: The database cannot be reached.
    """
    context.models.identity(options.model)
    options = answerable(context.settings, options)
    cap_usd = budgets.cap_for(context.settings, options.model, options.budget_usd)
    run_id, token = new_id(), uuid.uuid4()
    name = options.name or f"{now:%Y%m%d-%H%M%S}-{run_id.hex[-4:]}"
    check_name(name)

    def write(session: Session) -> Run:
        guard(session)
        prompt_versions.register(session, library.released().values())
        if (stored := session.get(Run, run_id)) is not None:
            return stored  # only the answer to an earlier commit was lost
        run = _run(context, run_id, name, options)
        run.intake_token = token
        _store(context, session, run, found, cap_usd)
        return run

    try:
        run = persistently(context.sessions, PATIENCE, write)
    except IntegrityError as error:
        raise UsageError(
            f"There is a run named “{name}” already.", "Choose another --run-name."
        ) from error
    return Submission(context, run, token, guard)


def _store(
    context: Context,
    session: Session,
    run: Run,
    found: Sequence[Entry],
    cap_usd: Decimal | None,
) -> None:
    session.add(run)
    session.flush()
    intake_leases.extend(session, [run.intake_token], context.lease)
    if found:
        listed_files.add(session, run.id, found)
    if cap_usd is not None:
        budgets.change_cap(session, run.id, cap_usd)


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
