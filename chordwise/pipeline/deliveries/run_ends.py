"""Delivering: telling others that a run ended, until they know or too many attempts have failed.

An attempt is counted and given time in one transaction, made without any, and recorded in another.
Whoever is killed in between leaves a delivery that is due again later, under the same name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import structlog
from sqlalchemy.orm import Session

from chordwise.domain import json_forms
from chordwise.domain.json_values import JsonObject
from chordwise.errors import (
    ChordwiseError,
    ConfigurationError,
    DeliveryError,
    DeliveryRefusedError,
    ServiceUnavailableError,
)
from chordwise.pipeline.deliveries.drop import drop
from chordwise.pipeline.deliveries.webhook import Webhook
from chordwise.pipeline.exports import selection, writers
from chordwise.pipeline.exports.selection import Selection
from chordwise.pipeline.runs import accounts, progress
from chordwise.pipeline.runtime.context import Context
from chordwise.settings import DeliverySettings, Settings
from chordwise.storage import clock, deliveries, incidents
from chordwise.storage.deliveries import Delivery, DeliveryKind, DeliveryStatus
from chordwise.storage.incidents import IncidentKind

log = structlog.get_logger(__name__)

SCHEMA_VERSION = 1
_MARGIN_SECONDS = 5.0
_FILE_SECONDS = 120.0  # a second attempt beside a slow one finds what that has done
_WHAT_HOLDS_THE_RESULTS = "document_results"


def deliver_next(context: Context) -> bool:
    """Make one attempt at what has been due for longest; tell whether there was anything.

    Raises:
        ServiceUnavailableError: The database cannot be reached; nothing is lost.
    """
    delivery, timestamp = _begin(context)
    if delivery is None:
        return False
    try:
        _attempt(context, delivery, timestamp)
    except ServiceUnavailableError:
        raise
    except ChordwiseError as error:
        _record_failure(context, delivery, error)
    else:
        _end(context, delivery, DeliveryStatus.DELIVERED)
        log.info("delivery.done", **_named(delivery))
    return True


def skip_unwanted(context: Context) -> None:
    """Set aside what nobody wants: no address, or no folder, is configured.

    Raises:
        ServiceUnavailableError: The database cannot be reached.
    """
    with context.database.write() as session:
        for kind in set(DeliveryKind) - _wanted(context):
            deliveries.skip(session, kind)


def _wanted(context: Context) -> set[DeliveryKind]:
    settings = context.settings.delivery
    wanted = {
        DeliveryKind.WEBHOOK: bool(settings.webhook_url.get_secret_value()),
        DeliveryKind.FILE: settings.folder is not None,
    }
    return {kind for kind, is_wanted in wanted.items() if is_wanted}


def _begin(context: Context) -> tuple[Delivery | None, int]:
    """Take up what is due; return it with the moment of this attempt, in seconds."""
    with context.database.write() as session:
        delivery = deliveries.take_due(session, _wanted(context))
        if delivery is None:
            return None, 0
        if delivery.content is None:
            delivery.content = _content(session, delivery)
        deliveries.begin_attempt(session, delivery, _time_given(context, delivery))
        return delivery, int(clock.read(session).timestamp())


def _time_given(context: Context, delivery: Delivery) -> timedelta:
    if delivery.kind == DeliveryKind.FILE:
        return timedelta(seconds=_FILE_SECONDS)
    return timedelta(seconds=context.settings.delivery.timeout_seconds + _MARGIN_SECONDS)


def identity(delivery: Delivery) -> str:
    """Return what a delivery is called outside, in every attempt."""
    return f"run_{delivery.id.hex}"


def _content(session: Session, delivery: Delivery) -> JsonObject:
    """Return the account of a run as it is now; no text of a document is in it."""
    account = accounts.of_run(session, delivery.run_id)
    return {
        "run": account.run,
        "delivery_id": identity(delivery),
        "account": json_forms.plain(account),
        "usage": json_forms.plain(progress.read(session, delivery.run_id).calls),
    }


def _attempt(context: Context, delivery: Delivery, timestamp: int) -> None:
    settings = context.settings.delivery
    if delivery.attempts > settings.max_attempts:
        raise DeliveryError("The scheduler was lost over it again and again.")
    if delivery.kind == DeliveryKind.WEBHOOK:
        Webhook(settings).post(identity(delivery), timestamp, _body(delivery))
    else:
        _drop(context, delivery)


def _body(delivery: Delivery) -> bytes:
    content = delivery.content or {}
    message = {
        "type": delivery.event,
        "timestamp": delivery.created_at.isoformat(),
        "schema_version": SCHEMA_VERSION,
        "data": {name: content[name] for name in ("account", "usage")},
    }
    # PostgreSQL has an order of its own for the members, and every attempt sends the same bytes.
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode()


def _drop(context: Context, delivery: Delivery) -> None:
    settings = context.settings
    if settings.database_url is None:
        raise ConfigurationError("No database is configured.")
    folder = folder_of(settings)
    writers.require(settings.delivery.format)
    wanted = Selection(name=_WHAT_HOLDS_THE_RESULTS, run_id=delivery.run_id)
    address = settings.database_url

    def write(sink: BinaryIO) -> None:
        with selection.opened(address, wanted) as table:
            writers.write(sink, table, settings.delivery.format)

    content: JsonObject = {"schema_version": SCHEMA_VERSION, **(delivery.content or {})}
    drop(folder, settings.delivery.format, content, write)


def folder_of(settings: Settings) -> Path:
    """Return the folder that files are put into; a relative one counts from `chordwise.toml`.

    Raises:
        ConfigurationError: None is configured.
    """
    if settings.delivery.folder is None:
        raise ConfigurationError("No folder for deliveries is configured.")
    return settings.base_folder / settings.delivery.folder.expanduser()


def _record_failure(context: Context, delivery: Delivery, error: ChordwiseError) -> None:
    settings = context.settings.delivery
    is_last = delivery.attempts >= settings.max_attempts
    if is_last or isinstance(error, DeliveryRefusedError):
        _end(context, delivery, DeliveryStatus.FAILED, error.what)
        log.error("delivery.failed", reason=error.what, **_named(delivery))
        return
    delay = _delay(settings, delivery.attempts) * context.random.uniform(0.8, 1.2)
    with context.database.write() as session:
        deliveries.put_off(session, delivery, delay, error.what)
    log.warning("delivery.put_off", reason=error.what, **_named(delivery))


def _delay(settings: DeliverySettings, attempts: int) -> timedelta:
    doubled = settings.first_wait_seconds * 2.0 ** min(attempts - 1, 30)
    return timedelta(seconds=min(settings.max_wait_seconds, doubled))


def _end(
    context: Context, delivery: Delivery, status: DeliveryStatus, reason: str | None = None
) -> None:
    with context.database.write() as session:
        deliveries.end(session, delivery, status, reason)
        if status is DeliveryStatus.FAILED:
            incidents.count(session, IncidentKind.DELIVERY_FAILED, delivery.kind)


def _named(delivery: Delivery) -> Mapping[str, object]:
    return {
        "kind": delivery.kind,
        "run_id": str(delivery.run_id),
        "attempts": delivery.attempts,
    }
