"""Submits documents to runs: stores each batch with its jobs and messages in one transaction."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from threading import Lock
from typing import TypeAlias

from sqlalchemy import select
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from chordwise.domain.states import InboxStatus, Lane, RunStatus
from chordwise.errors import LeaseLostError, RunCancelledError, UsageError
from chordwise.llm.limits.permits import Priority
from chordwise.pipeline.intake import (
    answer_tables,
    document_batches,
    learned_examples,
    transcription,
)
from chordwise.pipeline.intake.document_batches import Offered, RunQuestions
from chordwise.pipeline.intake.experiments import VariantAssignment
from chordwise.pipeline.intake.run_options import (
    RunOptions,
    check_name,
    differing,
    effective_options,
    from_json,
    require_answerable,
    to_json,
)
from chordwise.pipeline.jobs import run_control
from chordwise.pipeline.models import budgets
from chordwise.pipeline.models.model_client import lane_for
from chordwise.pipeline.runtime.context import DATABASE_TIMEOUT, Context
from chordwise.prompts import library
from chordwise.readers.reader import UnreadDocument
from chordwise.storage import closed_profiles, intakes, leases, prompt_versions
from chordwise.storage.inbox_files import InboxFile
from chordwise.storage.intakes import IntakeEntry, ListedFile, SizedItems
from chordwise.storage.record import new_id
from chordwise.storage.runs import Run

AlsoOfBatch: TypeAlias = Callable[[Session, Sequence[Offered]], None]
SessionAction: TypeAlias = Callable[[Session], None]


class Submission:
    """An open run that takes in documents, one batch per transaction, until it is closed.

    It holds the lease of the run's intake with `token`. If `is_resumed`, it continues the list of a
    run that was interrupted. One of several readers shares that token, and holds files of the list
    with the token `reader`. `transcriber` reads pages without text.
    """

    def __init__(
        self,
        context: Context,
        run: Run,
        token: uuid.UUID,
        *,
        is_resumed: bool = False,
        reader: uuid.UUID | None = None,
    ) -> None:
        self.run_id = run.id
        self.name = run.name
        self.is_resumed = is_resumed
        self._reader = reader
        self._context = context
        self._token = token
        self.options = effective_options(context.settings, from_json(run.options, run.name))
        run_questions = RunQuestions.of(context, run, self.options)
        examples = learned_examples.of_run(context, self.options, run_questions.budgets)
        self._run_questions = replace(run_questions, examples=examples)
        self._assignment = VariantAssignment(context, self._run_questions)
        self.lane = Lane(run.lane)
        self.transcriber = transcription.for_run(context, run, self._require_open)
        self._unlisted = 0
        self._turn = Lock()
        context.leases.keep_token(Run, token)

    @property
    def example_count(self) -> int:
        """The number of learned examples to choose from, over all analysis types."""
        return sum(map(len, self._run_questions.examples.values()))

    def has_dropped_options(self, options: RunOptions) -> bool:
        """Return whether requested votes or a critique were dropped for the built-in model."""
        analysis, requested = self.options.analysis, options.analysis
        return (analysis.votes, analysis.critique) != (requested.votes, requested.critique)

    def enlist(
        self, entries: Sequence[IntakeEntry], also: SessionAction | None = None
    ) -> Sequence[uuid.UUID]:
        """Add entries to the list of the run; return the ids of their intakes.

        `also` writes more in the same transaction.

        Raises:
            RunCancelledError: The run is cancelled.
            LeaseLostError: Another process holds the intake of this run.
        """
        intake_ids: Sequence[uuid.UUID] = ()
        with self._turn:
            for attempt in self._context.database.attempts(DATABASE_TIMEOUT):
                with attempt as session:
                    if intake_ids and intakes.exists(session, intake_ids[0]):
                        continue  # an earlier attempt was committed; only its response was lost
                    self._context.guard(session)
                    self._require_lease(session)
                    intake_ids = list(intakes.enlist(session, self.run_id, entries))
                    if also is not None:
                        also(session)
        return intake_ids

    def remaining_entries(self) -> Iterator[ListedFile]:
        """Yield the remaining entries of the list, in order."""
        after = -1
        while True:
            with self._context.database.read() as session:
                entries = intakes.listed(session, self.run_id, after)
            if not entries:
                return
            yield from entries
            after = entries[-1].position

    def take_in(self, offered: Sequence[Offered], also: AlsoOfBatch | None = None) -> None:
        """Store documents with their jobs and messages, or the reasons that there are none.

        They are stored in one transaction, in which `also` writes more. If PostgreSQL rejects a
        document, several transactions are used, and that document gets a reason. Threads take
        turns, so that the same content is taken in only once.

        Raises:
            RunCancelledError: The run is cancelled.
            LeaseLostError: Another process holds the intake of this run. Documents that were not
                stored are still on the list; these are all of them, unless the response to the last
                commit was lost or several transactions were needed.
        """
        with self._turn:
            self._store(offered, also)

    def close(self) -> None:
        """Release the lease of the run's intake.

        The run can only finish if no entry is left on its list; otherwise it is interrupted.
        """
        self.leave()
        self._context.database.commit(
            lambda session: intakes.release(session, self.run_id, self._token, self._unlisted),
            DATABASE_TIMEOUT,
        )

    def is_left_to_readers(self) -> bool:
        """Return whether files of the run wait for readers, or are being read by them."""
        with self._context.database.read() as session:
            return intakes.left_to_readers(session, self.run_id)

    def leave(self) -> None:
        """Leave the intake to the readers of the run."""
        self._context.leases.drop_token(self._token)

    def has_lease(self) -> bool:
        """Return whether this submission still holds the intake of a run that is not cancelled."""
        with self._context.database.read() as session:
            run = session.get_one(Run, self.run_id)
            return run.lease_token == self._token and run.status != RunStatus.CANCELLED

    def _require_open(self) -> None:
        for attempt in self._context.database.attempts(DATABASE_TIMEOUT):
            with attempt as session:
                self._context.guard(session)
                self._require_lease(session)

    def _require_lease(self, session: Session) -> None:
        status, token = intakes.locked(session, self.run_id)
        if status == RunStatus.CANCELLED:
            raise RunCancelledError(
                f"The run “{self.name}” is cancelled and accepts no more documents.",
                f"`chordwise continue {self.name}` analyzes what was taken in, and the rest.",
            )
        if token != self._token:
            raise LeaseLostError(
                f"The run {self.name} was taken over by another process.",
                "`chordwise runs RUN` shows its progress.",
            )

    def _store(self, offered: Sequence[Offered], also: AlsoOfBatch | None) -> None:
        is_repeated = False
        try:
            examples = self._run_questions.choose_examples(offered)
            for attempt in self._context.database.attempts(DATABASE_TIMEOUT):
                with attempt as session:
                    if is_repeated and intakes.exists(session, offered[0].intake_id):
                        continue  # an earlier attempt was committed; only its response was lost
                    self._context.guard(session)
                    if self._reader is not None:
                        ids = {offer.entry_id for offer in offered if offer.entry_id is not None}
                        intakes.require_reader(session, self.run_id, ids, self._reader)
                    settings, divide = self._context.settings, self._assignment.groups
                    document_batches.store(
                        session, settings, self._run_questions, offered, examples, divide
                    )
                    is_repeated = True
                    if also is not None:
                        also(session, offered)
                    # Last, because ends of jobs wait for this lock.
                    self._require_lease(session)
        except (DataError, UnicodeError) as error:
            for part in _split_or_replace(offered, error):
                self._store(part, also)
            return
        self._unlisted += sum(offer.entry_id is None for offer in offered)
        self._assignment.check()


def open_run(
    context: Context,
    options: RunOptions,
    now: datetime,
    entries: SizedItems[IntakeEntry] = (),
    run_id: uuid.UUID | None = None,
    request: tuple[str, str] | None = None,
) -> Submission:
    """Begin a run with the list of discovered files; `now` is used in a generated name.

    `request` is the key, by which no other run is begun, and the hash of a request of the API.

    The run and its list are stored in one transaction, so the list is always complete. A run that a
    schedule starts belongs to its occurrence, is a nightly one, and is named after it by default.

    Raises:
        UsageError: The name is taken or not permitted, or the budget or the table name is invalid.
        ConfigurationError: `require_answerable` refuses it.
    """
    cap_usd = require_answerable(context.settings, options)
    options = effective_options(context.settings, options)
    run_id, token, occurrence = run_id or new_id(), uuid.uuid4(), context.occurrence
    generated = occurrence.run_name if occurrence else f"{now:%Y%m%d-%H%M%S}-{run_id.hex[-4:]}"
    name = options.name or generated
    check_name(name)
    saved_as = answer_tables.table_of(options)
    templates = [*library.released().values(), *options.analysis.templates]
    try:
        for attempt in context.database.attempts(DATABASE_TIMEOUT):
            with attempt as session:
                context.guard(session)
                prompt_versions.register(session, templates)
                closed_profiles.close_new(
                    session, context.settings.readers_of_profiles, options.profile
                )
                stored = session.get(Run, run_id)
                run = stored or _run(context, run_id, name, options)
                if stored is None:  # otherwise an earlier attempt was committed
                    run.lease_token, run.saved_as = token, saved_as
                    run.request_key, run.request_hash = request or (None, None)
                    run.schedule_run_id = occurrence.id if occurrence else None
                    _store(session, run, entries, cap_usd)
                    leases.extend(session, Run, [token], context.lease)
                    answer_tables.ensure_table(session, run, options)
    except IntegrityError as error:
        what = f"A run named “{name}” already exists."
        raise UsageError(what, "Choose another --run-name.") from error
    return Submission(context, run, token)


def _store(
    session: Session, run: Run, entries: SizedItems[IntakeEntry], cap_usd: Decimal | None
) -> None:
    session.add(run)
    session.flush()
    if entries:
        deque(intakes.enlist(session, run.id, entries), maxlen=0)
    if cap_usd is not None:
        budgets.change_cap(session, run.id, cap_usd)


def _run(context: Context, run_id: uuid.UUID, name: str, options: RunOptions) -> Run:
    is_nightly = options.nightly or context.occurrence is not None
    return Run(
        id=run_id,
        name=name,
        options=to_json(options),
        type_count=len(options.types),
        priority=Priority.NIGHTLY if is_nightly else Priority.INTERACTIVE,
        use_cache=options.use_cache and not options.fresh,
        lane=lane_for(context.settings, options.model, options.lane),
    )


def _split_or_replace(offered: Sequence[Offered], error: Exception) -> list[Sequence[Offered]]:
    """Return two halves of a rejected batch, or the replacement of a single rejected document."""
    if len(offered) > 1:
        middle = len(offered) // 2
        return [offered[:middle], offered[middle:]]
    (offer,) = offered
    if isinstance(offer.document, UnreadDocument):
        raise error
    return [[document_batches.unstorable(offer, error)]]


_POLL_SECONDS = 1.0


class Resume:
    """Claims interrupted runs; `report` receives progress messages, `pause` sleeps for seconds."""

    def __init__(
        self, context: Context, report: Callable[[str], None], pause: Callable[[float], object]
    ) -> None:
        self._context = context
        self._report = report
        self._pause = pause

    def resume(self, run_id: uuid.UUID) -> Submission | None:
        """Resume an interrupted intake; `None` if nothing is left, or if it belongs to an inbox.

        The lease of a killed process is held for a while; this method waits until it expires. If
        the model that reads scans is paused, because its key or quota was denied, its next call
        probes whether the pause can end.

        Raises:
            UsageError: The run is cancelled, or another process still holds its intake.
        """
        name = self._interrupted_name(run_id)
        if name is None:
            return None
        # The lease of an occurrence proves that the process which began its run has ended.
        by_force = self._context.occurrence is not None
        is_free = by_force or self._wait_for_lease_end(run_id)
        submission = claim(self._context, run_id, by_force=by_force) if is_free else None
        if submission is None:
            raise UsageError(
                "Another process is reading the files of this run.",
                f"Wait for it with `chordwise wait {name}`.",
            )
        if vision := self._context.settings.readers.vision:
            run_control.probe_again(self._context.settings, [vision])
        return submission

    def _interrupted_name(self, run_id: uuid.UUID) -> str | None:
        """Return the name of a run of which files are left to read, unless they are an inbox's."""
        of_inbox = select(InboxFile.id).where(
            InboxFile.run_id == run_id, InboxFile.status == InboxStatus.CLAIMED
        )
        with self._context.database.read() as session:
            run = session.get_one(Run, run_id)
            is_of_inbox = session.scalar(select(of_inbox.exists()))
            is_left = intakes.left_to_readers(session, run_id)
        is_left = is_left and self._context.settings.intake.read == "workers"
        if run.intake_finished_at is not None or is_of_inbox or is_left:
            return None
        if run.status == RunStatus.CANCELLED:
            raise UsageError(
                f"The run {run.name} is cancelled, and no analysis of it is left.",
                "Submit its files in a run of their own.",
            )
        return run.name

    def _wait_for_lease_end(self, run_id: uuid.UUID) -> bool:
        """Wait for the end of a lease; return false if it was renewed in the meantime."""
        first = self._lease_end(run_id)
        if first is None:
            return True
        seconds = self._context.settings.pipeline.lease_seconds
        self._report(
            "Another process was reading files for this run until just now. Waiting up to "
            f"{seconds:.0f} seconds to see whether it has ended."
        )
        while (until := self._lease_end(run_id)) is not None:
            if until != first:
                return False
            self._pause(_POLL_SECONDS)
        return True

    def _lease_end(self, run_id: uuid.UUID) -> datetime | None:
        with self._context.database.read() as session:
            return intakes.held_until(session, run_id)


def open_or_resume(
    context: Context,
    options: RunOptions,
    now: datetime,
    entries: SizedItems[IntakeEntry],
    resume: Resume,
) -> Submission:
    """Begin a run, or resume an interrupted run with the same name and options.

    Raises:
        UsageError: The name is taken by a run that is not interrupted or has other options.
        ConfigurationError: The model is unknown, or there is a budget and the model has no price.
    """
    with context.database.read() as session:
        run = session.scalars(select(Run).where(Run.name == options.name)).one_or_none()
    if run is None or run.intake_finished_at or run.status == RunStatus.CANCELLED:
        return open_run(context, options, now, entries)
    requested = to_json(effective_options(context.settings, options))
    if changed := differing(requested, run.options):
        raise UsageError(
            f"A run named “{run.name}” already exists. It was interrupted, and this command "
            f"differs from the one that began it ({', '.join(changed)}).",
            f"Choose another --run-name, or continue with `chordwise continue {run.name}`.",
        )
    return resume.resume(run.id) or open_run(context, options, now, entries)


def claim(context: Context, run_id: uuid.UUID, *, by_force: bool = False) -> Submission | None:
    """Claim the intake of a run; `None` if it is finished, cancelled, or held by another process.

    `by_force` ignores the lease of another process; the caller must hold a lock which proves that
    the other process has ended.
    """
    token = uuid.uuid4()
    for attempt in context.database.attempts(DATABASE_TIMEOUT):
        with attempt as session:
            context.guard(session)
            if context.settings.intake.read == "here":
                intakes.keep_for_one(session, run_id)
            is_ours = intakes.claim(session, run_id, token, context.lease, by_force=by_force)
            run = session.get_one(Run, run_id) if is_ours else None
    return None if run is None else Submission(context, run, token, is_resumed=True)


def join(context: Context, run_id: uuid.UUID, reader: uuid.UUID) -> Submission | None:
    """Share the intake of a run with other readers; `None` if it has ended."""
    with context.database.write() as session:
        run = intakes.join(session, run_id, context.lease)
    if run is None or run.lease_token is None:
        return None
    return Submission(context, run, run.lease_token, is_resumed=True, reader=reader)
