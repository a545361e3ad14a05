"""Deliveries: notices that a run has ended, and the outcomes of schedules.

A delivery is repeated until it is accepted, or until too many attempts have failed.

An attempt is counted and given time in one transaction, made without one, and recorded in another.
A process that is killed in between leaves a delivery that is due again later, under the same name.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import structlog
from sqlalchemy.orm import Session

from chordwise.domain import json_values
from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.json_values import JsonObject
from chordwise.errors import (
    ChordwiseError,
    ConfigurationError,
    DeliveryError,
    DeliveryRefusedError,
    ReadError,
    ServiceUnavailableError,
    UsageError,
)
from chordwise.pipeline.deliveries.webhook import Webhook
from chordwise.pipeline.exports import selection, writers
from chordwise.pipeline.exports.selection import Selection
from chordwise.pipeline.exports.writers import new_file
from chordwise.pipeline.runs import accounts, progress
from chordwise.pipeline.runtime.context import Context
from chordwise.readers import contents
from chordwise.settings import Settings
from chordwise.storage import clock, deliveries, incidents
from chordwise.storage.deliveries import Delivery, DeliveryKind, DeliveryStatus
from chordwise.storage.incidents import IncidentKind

log = structlog.get_logger(__name__)
SCHEMA_VERSION = 1
_MARGIN_SECONDS = 5.0
_FILE_SECONDS = 120.0  # a second attempt beside a slow one finds what that has done
_WHAT_HOLDS_THE_RESULTS = "document_results"


def deliver_next(context: Context) -> bool:
    """Attempt the delivery that has been due for longest; return whether there was one.

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
    """Set aside what has no receiver: no address, or no folder, is configured."""
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
    """Claim a due delivery; return it with the time of this attempt, in seconds."""
    with context.database.write() as session:
        delivery = deliveries.take_due(session, _wanted(context))
        if delivery is None:
            return None, 0
        if delivery.content is None and delivery.run_id is not None:
            delivery.content = _content(session, delivery, delivery.run_id)
        delivery.attempts += 1  # before it is made, so that a kill counts
        now = clock.read(session)
        delivery.due_at = now + _time_given(context, delivery)  # which keeps others away meanwhile
        return delivery, int(now.timestamp())


def _time_given(context: Context, delivery: Delivery) -> timedelta:
    if delivery.kind == DeliveryKind.FILE:
        return timedelta(seconds=_FILE_SECONDS)
    return timedelta(seconds=context.settings.delivery.timeout_seconds + _MARGIN_SECONDS)


def identity(delivery: Delivery) -> str:
    """Return what a delivery is called outside, in every attempt."""
    return f"{delivery.event.partition('.')[0]}_{delivery.id.hex}"


def _content(session: Session, delivery: Delivery, run_id: uuid.UUID) -> JsonObject:
    """Return the current account of a run; it contains no text of a document."""
    account = accounts.of_run(session, run_id)
    return {
        "run": account.run,
        "delivery_id": identity(delivery),
        "account": json_values.plain(account),
        "usage": json_values.plain(progress.read(session, run_id).calls),
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
        "data": {name: content[name] for name in content if name not in ("run", "delivery_id")},
    }
    # PostgreSQL has an order of its own for the members, and every attempt sends the same bytes.
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode()


def _drop(context: Context, delivery: Delivery) -> None:
    settings = context.settings
    address = settings.require_database_url()
    folder = folder_of(settings)
    writers.require(settings.delivery.format)
    wanted = Selection(name=_WHAT_HOLDS_THE_RESULTS, run_id=delivery.run_id)

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
    doubled = settings.first_wait_seconds * 2.0 ** min(delivery.attempts - 1, 30)
    seconds = min(settings.max_wait_seconds, doubled) * context.random.uniform(0.8, 1.2)
    delay = timedelta(seconds=seconds)
    with context.database.write() as session:
        deliveries.put_off(session, delivery, delay, error.what)
    log.warning("delivery.put_off", reason=error.what, **_named(delivery))


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
        "run_id": str(delivery.run_id) if delivery.run_id else None,
        "attempts": delivery.attempts,
    }


_UNSAFE = re.compile(r"[^\w.-]+")
_MAX_BYTES = 150
_MAX_NAMES = 1_000
_ACCOUNT_MEGABYTES = 1


def drop(
    folder: Path, wanted: ExportFormat, content: JsonObject, write: Callable[[BinaryIO], object]
) -> Path:
    """Put the account of a run and its answers into a folder, once; return the path of the latter.

    `content` holds the `delivery_id` and the run's name; `write` writes the answers.

    Raises:
        DeliveryError: The folder is missing or full of files of this name.
        UsageError: A file cannot be written.
    """
    if not folder.is_dir():
        raise DeliveryError(f"There is no folder {folder}.", "Make it, or set delivery.folder.")
    for stem in _stems(_safe(json_values.text(content["run"]))):
        path = folder / f"{stem}.{wanted}"
        if _claim(folder / f"{stem}.account.json", path, content):
            if not os.path.lexists(path):
                with new_file(path) as sink:
                    write(sink)
            return path
    raise DeliveryError(f"{folder} is full of files of the same name.", "Move them away.")


def _claim(account: Path, path: Path, content: JsonObject) -> bool:
    """Write the account, or find the one of this delivery; return false if others use the name."""
    if not os.path.lexists(account) and not os.path.lexists(path):
        try:
            with new_file(account) as sink:
                sink.write(f"{json.dumps(content, ensure_ascii=False, indent=2)}\n".encode())
        except UsageError:
            if not os.path.lexists(account):
                raise
    return _delivery_of(account) == content["delivery_id"]


def _delivery_of(account: Path) -> object:
    """Return the delivery that an account is of; `None` of what is no account, such as a pipe."""
    try:
        with contents.opened(account, _ACCOUNT_MEGABYTES, follow_symlinks=False) as file:
            found = json.loads(file.read())
    except (ReadError, OSError, ValueError, RecursionError):
        return None
    return found.get("delivery_id") if isinstance(found, dict) else None


def _safe(run: str) -> str:
    """Return a run's name as a name of a file: nothing leads out of the folder, or is hidden."""
    bare = _UNSAFE.sub("_", run).strip("._-")
    return bare.encode()[:_MAX_BYTES].decode(errors="ignore") or "run"


def _stems(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in itertools.islice(itertools.count(2), _MAX_NAMES))
