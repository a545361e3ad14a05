"""Deliveries: notices that a run has ended, and the outcomes of schedules.

A delivery is repeated until it is accepted or rejected permanently, or has no attempts left.

Each attempt is counted and given a time limit in one transaction, made outside of any, and recorded
in another one. If the process is killed in between, the delivery is due again later, with the same
id.
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
from chordwise.domain.states import DeliveryStatus
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
from chordwise.pipeline.runtime.context import Context
from chordwise.readers import contents
from chordwise.relations import accounts, progress
from chordwise.settings import Settings
from chordwise.storage import clock, deliveries, incidents
from chordwise.storage.database import driver
from chordwise.storage.deliveries import Delivery, DeliveryKind
from chordwise.storage.incidents import IncidentKind

log = structlog.get_logger(__name__)
SCHEMA_VERSION = 1
_MARGIN_SECONDS = 5.0
_FILE_SECONDS = 120.0  # a second attempt beside a slow one finds the files of that one
_REPORT_MEGABYTES = 16
_WHAT_HOLDS_THE_RESULTS = "document_results"


def deliver_next(context: Context) -> bool:
    """Attempt the delivery that has been due for longest; return whether there was one.

    Raises:
        ServiceUnavailableError: The database cannot be reached; no data is lost.
    """
    delivery, timestamp = _claim_due(context)
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
        log.info("delivery.done", **_log_fields(delivery))
    return True


def skip_unwanted(context: Context) -> None:
    """Skip deliveries without a receiver: no address or no folder is configured for their kind."""
    with context.database.write() as session:
        for kind in set(DeliveryKind) - _configured_kinds(context):
            deliveries.skip(session, kind)


def _configured_kinds(context: Context) -> set[DeliveryKind]:
    settings = context.settings.delivery
    kinds = {
        DeliveryKind.WEBHOOK: bool(settings.webhook_url.get_secret_value()),
        DeliveryKind.FILE: settings.folder is not None,
    }
    return {kind for kind, is_configured in kinds.items() if is_configured}


def _claim_due(context: Context) -> tuple[Delivery | None, int]:
    """Claim a due delivery; return it with the time of this attempt, in seconds."""
    with context.database.write() as session:
        delivery = deliveries.lock_due(session, _configured_kinds(context))
        if delivery is None:
            return None, 0
        if delivery.content is None and delivery.run_id is not None:
            delivery.content = _content(session, delivery, delivery.run_id)
        delivery.attempts += 1  # counted before the attempt, so that a killed one counts
        now = clock.read(session)
        delivery.due_at = now + _attempt_timeout(context, delivery)  # reserves it meanwhile
        return delivery, int(now.timestamp())


def _attempt_timeout(context: Context, delivery: Delivery) -> timedelta:
    if delivery.kind == DeliveryKind.FILE:
        return timedelta(seconds=_FILE_SECONDS)
    return timedelta(seconds=context.settings.delivery.timeout_seconds + _MARGIN_SECONDS)


def identity(delivery: Delivery) -> str:
    """Return the external id of a delivery, which is the same in every attempt."""
    return f"{delivery.event.partition('.')[0]}_{delivery.id.hex}"


def _content(session: Session, delivery: Delivery, run_id: uuid.UUID) -> JsonObject:
    """Return the current account of a run; it contains no text of a document."""
    account = accounts.of_run(driver(session), run_id)
    return {
        "run": account.run,
        "delivery_id": identity(delivery),
        "account": json_values.as_json(account),
        "usage": json_values.as_json(progress.read(driver(session), run_id).calls),
    }


def _attempt(context: Context, delivery: Delivery, timestamp: int) -> None:
    settings = context.settings.delivery
    if delivery.attempts > settings.max_attempts:
        raise DeliveryError("The scheduler crashed repeatedly during this delivery.")
    if delivery.kind == DeliveryKind.WEBHOOK:
        Webhook(settings).post(identity(delivery), timestamp, _body(context, delivery))
    else:
        _write_files(context, delivery)


def _body(context: Context, delivery: Delivery) -> bytes:
    content = delivery.content or {}
    if delivery.event == deliveries.REPORT_WRITTEN and context.settings.delivery.webhook_report:
        content = {**content, "html": _file_text(json_values.text(content.get("file")))}
    message = {
        "type": delivery.event,
        "timestamp": delivery.created_at.isoformat(),
        "schema_version": SCHEMA_VERSION,
        "data": {name: content[name] for name in content if name not in ("run", "delivery_id")},
    }
    # PostgreSQL reorders the members; sorted keys give every attempt the same bytes.
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode()


def _file_text(path: str) -> str | None:
    """Return the text of a report; `None` if it is no longer a readable file."""
    try:
        with contents.opened(Path(path), _REPORT_MEGABYTES, follow_symlinks=False) as file:
            return file.read().decode()
    except (ReadError, OSError, ValueError) as error:
        log.warning("delivery.report_missing", path=path, error=type(error).__name__)
        return None


def _write_files(context: Context, delivery: Delivery) -> None:
    settings = context.settings
    address = settings.require_database_url()
    folder = folder_of(settings)
    writers.require(settings.delivery.format)
    results = Selection(name=_WHAT_HOLDS_THE_RESULTS, run_id=delivery.run_id)

    def write(sink: BinaryIO) -> None:
        with selection.opened(address, results) as table:
            writers.write(sink, table, settings.delivery.format)

    content: JsonObject = {"schema_version": SCHEMA_VERSION, **(delivery.content or {})}
    write_files(folder, settings.delivery.format, content, write)


def folder_of(settings: Settings) -> Path:
    """Return the folder for deliveries; a relative path is resolved against `chordwise.toml`.

    Raises:
        ConfigurationError: No folder is configured.
    """
    if settings.delivery.folder is None:
        raise ConfigurationError("No folder for deliveries is configured.")
    return settings.base_folder / settings.delivery.folder.expanduser()


def _record_failure(context: Context, delivery: Delivery, error: ChordwiseError) -> None:
    settings = context.settings.delivery
    is_last = delivery.attempts >= settings.max_attempts
    if is_last or isinstance(error, DeliveryRefusedError):
        _end(context, delivery, DeliveryStatus.FAILED, error.what)
        log.error("delivery.failed", reason=error.what, **_log_fields(delivery))
        return
    doubled = settings.first_wait_seconds * 2.0 ** min(delivery.attempts - 1, 30)
    seconds = min(settings.max_wait_seconds, doubled) * context.random.uniform(0.8, 1.2)
    delay = timedelta(seconds=seconds)
    with context.database.write() as session:
        deliveries.postpone(session, delivery, delay, error.what)
    log.warning("delivery.postponed", reason=error.what, **_log_fields(delivery))


def _end(
    context: Context, delivery: Delivery, status: DeliveryStatus, reason: str | None = None
) -> None:
    with context.database.write() as session:
        deliveries.end(session, delivery, status, reason)
        if status is DeliveryStatus.FAILED:
            incidents.count(session, IncidentKind.DELIVERY_FAILED, delivery.kind)


def _log_fields(delivery: Delivery) -> Mapping[str, object]:
    return {
        "kind": delivery.kind,
        "run_id": str(delivery.run_id) if delivery.run_id else None,
        "attempts": delivery.attempts,
    }


_UNSAFE = re.compile(r"[^\w.-]+")
_MAX_BYTES = 150
_MAX_NAMES = 1_000
_ACCOUNT_MEGABYTES = 1


def write_files(
    folder: Path,
    file_format: ExportFormat,
    content: JsonObject,
    write: Callable[[BinaryIO], object],
) -> Path:
    """Write the account of a run and its answers into a folder, once; return the answers' path.

    `content` contains the `delivery_id` and the name of the run; `write` writes the answers.

    Raises:
        DeliveryError: The folder is missing, or all numbered file names are taken.
        UsageError: A file cannot be written.
    """
    if not folder.is_dir():
        raise DeliveryError(f"There is no folder {folder}.", "Create it, or set delivery.folder.")
    for stem in _numbered_names(_safe_name(json_values.text(content["run"]))):
        path = folder / f"{stem}.{file_format}"
        if _write_account(folder / f"{stem}.account.json", path, content):
            if not os.path.lexists(path):
                with new_file(path) as sink:
                    write(sink)
            return path
    raise DeliveryError(f"{folder} has too many files of the same name.", "Move them away.")


def _write_account(account: Path, path: Path, content: JsonObject) -> bool:
    """Write the account unless the names are taken; return whether it is of this delivery."""
    if not os.path.lexists(account) and not os.path.lexists(path):
        try:
            with new_file(account) as sink:
                sink.write(f"{json.dumps(content, ensure_ascii=False, indent=2)}\n".encode())
        except UsageError:
            if not os.path.lexists(account):
                raise
    return _delivery_of(account) == content["delivery_id"]


def _delivery_of(account: Path) -> object:
    """Return the delivery id in an account; `None` if the path is not an account file."""
    try:
        with contents.opened(account, _ACCOUNT_MEGABYTES, follow_symlinks=False) as file:
            found = json.loads(file.read())
    except (ReadError, OSError, ValueError, RecursionError):
        return None
    return found.get("delivery_id") if isinstance(found, dict) else None


def _safe_name(run: str) -> str:
    """Return a file name for a run's name: it stays in the folder and is not hidden."""
    bare = _UNSAFE.sub("_", run).strip("._-")
    return bare.encode()[:_MAX_BYTES].decode(errors="ignore") or "run"


def _numbered_names(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in itertools.islice(itertools.count(2), _MAX_NAMES))
