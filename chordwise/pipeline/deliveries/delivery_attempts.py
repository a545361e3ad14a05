"""Deliveries: notices that a run has ended, and the outcomes of schedules.

A delivery is repeated until it is accepted or rejected permanently, or has no attempts left.

Each attempt is counted and given a time limit in one transaction, made outside of any, and recorded
in another one. If the process is killed in between, the delivery is due again later, with the same
id.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

import structlog

from chordwise.domain import json_values
from chordwise.domain.states import DeliveryStatus
from chordwise.errors import (
    ChordwiseError,
    DeliveryError,
    DeliveryRefusedError,
    ServiceUnavailableError,
)
from chordwise.pipeline.runtime.context import Context
from chordwise.relations import accounts, progress
from chordwise.settings.receivers import Notice
from chordwise.storage import clock, deliveries, incidents
from chordwise.storage.database import driver
from chordwise.storage.deliveries import Delivery
from chordwise.storage.incidents import IncidentKind

log = structlog.get_logger(__name__)
_MARGIN_SECONDS = 5.0


def deliver_next(context: Context) -> bool:
    """Attempt the delivery that has been due for longest; return whether there was one.

    Raises:
        ServiceUnavailableError: The database cannot be reached; no data is lost.
    """
    delivery, attempted_at = _claim_due(context)
    if delivery is None:
        return False
    try:
        receiver = context.settings.deliveries[delivery.kind]
        if delivery.attempts > receiver.max_attempts:
            raise DeliveryError("The scheduler crashed repeatedly during this delivery.")
        notice = Notice(
            id=identity(delivery),
            event=delivery.event,
            created_at=delivery.created_at,
            attempted_at=attempted_at,
            run_id=delivery.run_id,
            content=delivery.content or {},
        )
        receiver.deliver(notice, context.settings)
    except ServiceUnavailableError:
        raise
    except ChordwiseError as error:
        _record_failure(context, delivery, error)
    else:
        _end(context, delivery, DeliveryStatus.DELIVERED)
        log.info("delivery.done", **_log_fields(delivery))
    return True


def skip_unwanted(context: Context) -> None:
    """Skip deliveries without a receiver, and those that their receiver does not want."""
    with context.database.write() as session:
        deliveries.skip_all_but(session, _wanted(context))


def _wanted(context: Context) -> Collection[tuple[str, str]]:
    """Return the kinds of the configured receivers, each with each event that it wants."""
    receivers = context.settings.deliveries.items()
    return [(kind, event) for kind, receiver in receivers for event in receiver.events]


def _claim_due(context: Context) -> tuple[Delivery | None, datetime]:
    """Claim a due delivery; return it with the time of this attempt."""
    with context.database.write() as session:
        now = clock.read(session)
        delivery = deliveries.lock_due(session, _wanted(context))
        if delivery is not None:
            if delivery.content is None and delivery.run_id is not None:
                account = accounts.of_run(driver(session), delivery.run_id)
                delivery.content = {
                    "run": account.run,
                    "delivery_id": identity(delivery),
                    "account": json_values.as_json(account),
                    "usage": json_values.as_json(
                        progress.read(driver(session), delivery.run_id).calls
                    ),
                }
            delivery.attempts += 1  # counted before the attempt, so that a killed one counts
            seconds = context.settings.deliveries[delivery.kind].timeout_seconds
            delivery.due_at = now + timedelta(seconds=seconds + _MARGIN_SECONDS)
        return delivery, now


def identity(delivery: Delivery) -> str:
    """Return the external id of a delivery, which is the same in every attempt."""
    return f"{delivery.event.partition('.')[0]}_{delivery.id.hex}"


def _record_failure(context: Context, delivery: Delivery, error: ChordwiseError) -> None:
    settings = context.settings.deliveries[delivery.kind]
    is_last = delivery.attempts >= settings.max_attempts
    if is_last or isinstance(error, DeliveryRefusedError):
        _end(context, delivery, DeliveryStatus.FAILED, error.what)
        log.error("delivery.failed", reason=error.what, **_log_fields(delivery))
        return
    doubled = settings.first_wait_seconds * 2.0 ** min(delivery.attempts - 1, 30)
    seconds = min(settings.max_wait_seconds, doubled) * context.random.uniform(0.8, 1.2)
    with context.database.write() as session:
        due_at = clock.now_plus(timedelta(seconds=seconds))
        deliveries.record(session, delivery, due_at=due_at, last_error=error.what)
    log.warning("delivery.postponed", reason=error.what, **_log_fields(delivery))


def _end(
    context: Context, delivery: Delivery, status: DeliveryStatus, reason: str | None = None
) -> None:
    with context.database.write() as session:
        values = {"last_error": reason, "finished_at": clock.database_now()}
        deliveries.record(session, delivery, status=status, **values)
        if status is DeliveryStatus.FAILED:
            incidents.count(session, IncidentKind.DELIVERY_FAILED, delivery.kind)


def _log_fields(delivery: Delivery) -> Mapping[str, object]:
    return {
        "kind": delivery.kind,
        "run_id": str(delivery.run_id) if delivery.run_id else None,
        "attempts": delivery.attempts,
    }
