"""Recovery: finding work that stopped moving, and moving it again.

Every rule is one transaction that locks a bounded number of rows. Two recoveries at once are
harmless, and so is sending too early: a message for finished work costs one query.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.jobs import shared_jobs
from chordwise.pipeline.recovery import batches, chunks, jobs, unclaimed
from chordwise.pipeline.runtime.context import Context
from chordwise.storage import budgets, clock, incidents, outbox
from chordwise.storage.incidents import IncidentKind
from chordwise.storage.jobs import may_stop_moving
from chordwise.storage.record import new_id

log = structlog.get_logger(__name__)

Rule: TypeAlias = Callable[[Context, Session], int]
"""Takes up what stopped for one reason; returns how much that was."""

_BATCH = 500


def abandoned_reservations(context: Context, session: Session) -> int:  # noqa: ARG001 - one shape for all
    """Count requests that were not settled in time as spent."""
    return budgets.settle_abandoned(session, _BATCH)


RULES: tuple[tuple[str, Rule], ...] = (
    ("run_cancelled", jobs.cancelled_runs),
    ("lease_expired", chunks.expired_leases),
    ("last_attempt", chunks.last_attempts_in_turn),
    ("due", chunks.due),
    ("batch_answered", batches.answered),
    ("batch_unwanted", batches.unwanted),
    ("chunk_never_sent", chunks.never_sent),
    ("chunk_message_lost", chunks.lost_messages),
    ("job_message_lost", jobs.lost_messages),
    ("synthesis_missing", jobs.missing_syntheses),
    ("followed", shared_jobs.served),
    ("intake_abandoned", jobs.abandoned_intakes),
    ("run_unsettled", jobs.unsettled_runs),
    ("reservation_abandoned", abandoned_reservations),
)
# Work that was put off on purpose is no accident.
_PLANNED = ("run_cancelled", "due", "batch_answered", "batch_unwanted", "followed")


def recover(context: Context) -> dict[str, int]:
    """Apply every rule once; return how many rescues each made, those of none left out.

    Where nothing is unfinished no rule is asked. Each rescue is logged, and counted in `incidents`.

    Raises:
        ServiceUnavailableError: The database cannot be reached.
    """
    rescues = {"broker_forgot": _broker_forgot(context)}
    for reason, rule in RULES if _may_find_something(context) else ():
        rescues[reason] = _in_transaction(context, reason, rule)
    found = {reason: count for reason, count in rescues.items() if count}
    for reason, count in found.items():
        log.warning("recovery.rescued", reason=reason, count=count)
    return found


def _may_find_something(context: Context) -> bool:
    with context.database.read() as session:
        return may_stop_moving(session)


def take_up_after_standstill(context: Context) -> int:
    """Send everything unclaimed, if nobody holds any lease; return how much that was.

    For a scheduler that begins to lead: after a stop of the whole stack the messages that the
    workers had taken from the broker are lost, and nothing overtakes them.

    Raises:
        ServiceUnavailableError: The database cannot be reached.
    """
    try:
        return _standstill(context)
    except ServiceUnavailableError:
        raise
    except Exception:  # recovery goes on without it
        log.exception("recovery.defect", reason="standstill")
        return 0


def _standstill(context: Context) -> int:
    with context.database.read() as session:
        if session.scalar(select(unclaimed.worker_is_active())):
            return 0
        begun_at = clock.read(session)
    sent = unclaimed.send_everything(context, begun_at)
    with context.database.write() as session:
        incidents.count(session, IncidentKind.RESCUE, "standstill", sent)
    return sent


def _in_transaction(context: Context, reason: str, rule: Rule) -> int:
    try:
        with context.database.write() as session:
            count = rule(context, session)
            if reason not in _PLANNED:
                incidents.count(session, IncidentKind.RESCUE, reason, count)
            return count
    except ServiceUnavailableError:
        raise
    except Exception:  # one rule's defect must not keep the others from their work
        log.exception("recovery.defect", reason=reason)
        return 0


def _broker_forgot(context: Context) -> int:
    """Send everything unclaimed again, if the broker has lost its memory.

    The marker stands in the broker and in the database; a broker that restarted empty, or was
    flushed, does not know it any more. Until everything is promised, the broker holds the moment
    when that began instead: another recovery goes on from there, and the new marker comes last.
    """
    try:
        found = context.messenger.marker()
    except ServiceUnavailableError as error:
        log.warning("recovery.broker_unreachable", reason=error.what)
        return 0
    with context.database.read() as session:
        known = outbox.current(session)
        now = clock.read(session)
    if found is not None and found == known:
        return 0
    begun_at = outbox.begun_at(found) or now
    # The broker first: where it takes no marker, it takes no messages either.
    if not _leave_marker(context, outbox.of_beginning(begun_at)):
        return 0
    sent = 0 if known is None else unclaimed.send_everything(context, begun_at)
    marker = str(new_id())
    with context.database.write() as session:
        outbox.remember(session, marker)
        if known is not None:
            # Something has happened even where nothing was lost by it.
            incidents.count(session, IncidentKind.RESCUE, "broker_forgot", max(1, sent))
    _leave_marker(context, marker)
    if known is not None:
        log.warning("recovery.broker_forgot", sent=sent)
    return sent


def _leave_marker(context: Context, marker: str) -> bool:
    try:
        context.messenger.set_marker(marker)
    except ServiceUnavailableError as error:
        log.warning("recovery.broker_takes_nothing", reason=error.what)
        return False
    return True
