"""Resuming a run whose intake was interrupted: by its name, or by the same command again."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import select

from chordwise.domain.states import InboxStatus, RunStatus
from chordwise.errors import UsageError
from chordwise.pipeline.intake.run_options import RunOptions, answerable, to_json
from chordwise.pipeline.intake.submit import Guard, Submission, open_run, unguarded
from chordwise.pipeline.runtime.context import PATIENCE, Context
from chordwise.storage import intakes
from chordwise.storage.inbox_files import InboxFile
from chordwise.storage.intakes import Entry
from chordwise.storage.runs import Run

_LOOK_SECONDS = 1.0


class Resume:
    """Claims interrupted runs; `tell` says what is waited for, `pause` waits some seconds."""

    def __init__(
        self,
        context: Context,
        tell: Callable[[str], None],
        pause: Callable[[float], object],
    ) -> None:
        self._context = context
        self._tell = tell
        self._pause = pause

    def resume(self, run_id: uuid.UUID) -> Submission:
        """Go on with a run whose intake was interrupted.

        A process that was killed holds its lease for a while, which is waited for.

        Raises:
            UsageError: The run is not interrupted, or a process still takes in for it.
            ServiceUnavailableError: The database cannot be reached.
        """
        self._require_interrupted(run_id)
        self._await_lease(run_id)
        submission = claim(self._context, run_id)
        if submission is None:
            raise self._being_taken_in(run_id)
        return submission

    def _require_interrupted(self, run_id: uuid.UUID) -> None:
        of_inbox = select(InboxFile.id).where(
            InboxFile.run_id == run_id, InboxFile.status == InboxStatus.TAKEN
        )
        with self._context.database.read() as session:
            run = session.get_one(Run, run_id)
            is_of_inbox = session.scalar(select(of_inbox.exists()))
        if run.status == RunStatus.CANCELLED:
            raise UsageError(
                f"The run {run.name} is cancelled.", f"First: `chordwise retry {run.name}`."
            )
        if run.intake_finished_at is not None:
            raise UsageError(
                f"Everything that the run {run.name} found is taken in.",
                f"`chordwise wait {run.name}` shows its results.",
            )
        if is_of_inbox:
            raise UsageError(
                f"The run {run.name} belongs to an inbox.",
                "The scheduler goes on with it: `chordwise inbox` shows the files.",
            )

    def _await_lease(self, run_id: uuid.UUID) -> None:
        first = self._held_until(run_id)
        if first is None:
            return
        seconds = self._context.settings.pipeline.lease_seconds
        self._tell(
            "Another process was taking in for this run until just now. Waiting for up to "
            f"{seconds:.0f} seconds to see whether it is gone."
        )
        while (until := self._held_until(run_id)) is not None:
            if until != first:
                raise self._being_taken_in(run_id)
            self._pause(_LOOK_SECONDS)

    def _being_taken_in(self, run_id: uuid.UUID) -> UsageError:
        with self._context.database.read() as session:
            name = session.get_one(Run, run_id).name
        return UsageError(
            "Another process is taking in for this run.",
            f"Wait for it with `chordwise wait {name}`.",
        )

    def _held_until(self, run_id: uuid.UUID) -> datetime | None:
        with self._context.database.read() as session:
            return intakes.held_until(session, run_id)


def open_or_resume(
    context: Context, options: RunOptions, now: datetime, found: Sequence[Entry], resume: Resume
) -> Submission:
    """Begin a run, or go on with an interrupted one of the same name that asks the same.

    Raises:
        UsageError: The name is taken by a run that is not interrupted or asks something else.
        ConfigurationError: The model is unknown, or its price where there is a budget.
        ServiceUnavailableError: The database cannot be reached.
    """
    with context.database.read() as session:
        known = session.scalars(select(Run).where(Run.name == options.name)).one_or_none()
    if known is None or not _can_be_resumed(known):
        return open_run(context, options, now, found)
    asked = to_json(answerable(context.settings, options))
    differing = sorted(name for name in asked if asked[name] != known.options.get(name))
    if differing:
        raise UsageError(
            f"There is a run named “{known.name}” already. It was interrupted, and this command "
            f"differs from the one that began it ({', '.join(differing)}).",
            f"Choose another --run-name, or go on with `chordwise resume {known.name}`.",
        )
    return resume.resume(known.id)


def claim(
    context: Context, run_id: uuid.UUID, guard: Guard = unguarded, *, by_force: bool = False
) -> Submission | None:
    """Take over the intake of a run; `None` where it is finished, cancelled, or held by another.

    `by_force` is for those who know from a lock of their own that the other one is gone.

    Raises:
        ServiceUnavailableError: The database cannot be reached.
    """
    token = uuid.uuid4()
    for attempt in context.database.attempts(PATIENCE):
        with attempt as session:
            guard(session)
            is_ours = intakes.claim(session, run_id, token, context.lease, by_force=by_force)
            run = session.get_one(Run, run_id) if is_ours else None
    return None if run is None else Submission(context, run, token, guard, is_resumed=True)


def _can_be_resumed(run: Run) -> bool:
    return run.intake_finished_at is None and run.status != RunStatus.CANCELLED
