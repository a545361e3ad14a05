"""Sends messages of the outbox to the broker, which holds only as many as workers soon take."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy.orm import Session

from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.messages import ANALYZE_SLICE, slice_size, sliced
from chordwise.storage import batches, cached_completions, chunks, outbox
from chordwise.storage.outbox import Backlog, DueMessage, Urgency

log = structlog.get_logger(__name__)

BATCH = 500
"""The maximum number of messages that are sent together."""
MIN_WINDOW = 512
"""The number of messages on their way to workers, if only few chunks are being analyzed."""
KEEP_SETTLED = timedelta(days=7)
_MAX_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Dispatched:
    """The number of messages that were sent, and whether others are on their way to workers."""

    sent: int
    is_busy: bool


def dispatch(context: Context) -> Dispatched:
    """Send the next messages, as far as the window has room, and those whose work has not begun.

    The window is twice the number of chunks that are being analyzed, at least `MIN_WINDOW`. Only
    messages of the same or a higher urgency count against it. Messages are recorded as sent before
    they are: after a crash between the two, they are sent again when their wait is over.

    Raises:
        ServiceUnavailableError: The database or broker cannot be reached; nothing is lost.
    """
    with context.database.write() as session:
        backlogs = outbox.backlog(session)
        due = [*_overdue(context, session, backlogs), *_next(context, session, backlogs)]
    unsent = {message.id for message in due}
    ends_at = time.monotonic() + _MAX_SECONDS
    try:
        for group in _packed(due, slice_size(context.settings)):
            ids = [message.id for message in group]
            is_nightly = group[0].urgency is Urgency.NIGHTLY
            context.messenger.send(group[0].task, ids, is_nightly=is_nightly)
            unsent.difference_update(ids)
            if time.monotonic() > ends_at:
                break
    except ServiceUnavailableError:
        _take_back(context, unsent)
        raise
    _take_back(context, unsent)
    in_flight = sum(backlog.in_flight for backlog in backlogs.values())
    return Dispatched(len(due) - len(unsent), is_busy=bool(due or in_flight))


def _take_back(context: Context, unsent: set[uuid.UUID]) -> None:
    if unsent:
        with context.database.write() as session:
            outbox.take_back(session, unsent)


def _overdue(
    context: Context, session: Session, backlogs: Mapping[Urgency, Backlog]
) -> Sequence[DueMessage]:
    """Return messages that were sent in vain; while others wait in the broker, much later ones."""
    if not any(backlog.is_overdue for backlog in backlogs.values()):
        return ()
    pipeline = context.settings.pipeline
    longer_than = timedelta(seconds=pipeline.stalled_seconds)
    if context.messenger.is_idle():
        longer_than = timedelta()
    repeated = outbox.take_overdue(session, longer_than, BATCH, pipeline.resend_wait)
    if repeated:
        log.info("dispatch.repeated", count=len(repeated))
    return repeated


def _next(
    context: Context, session: Session, backlogs: Mapping[Urgency, Backlog]
) -> Sequence[DueMessage]:
    """Return messages that were not sent yet, as far as the window has room, in their order."""
    if not any(backlog.has_unsent for backlog in backlogs.values()):
        return ()
    window, in_flight = max(MIN_WINDOW, 2 * chunks.running(session)), 0
    wait = context.settings.pipeline.resend_wait
    taken: list[DueMessage] = []
    for urgency, backlog in sorted(backlogs.items()):
        in_flight += backlog.in_flight
        room = min(BATCH, window - in_flight) - len(taken)
        if backlog.has_unsent and room > 0:
            taken += outbox.take(session, urgency, room, wait)
    return taken


def _packed(messages: Sequence[DueMessage], size: int) -> Iterator[Sequence[DueMessage]]:
    """Yield the messages that are sent as one: chunks in slices of up to `size`, others alone.

    A chunk on its last attempt is sent alone, and an urgent one not with nightly ones.
    """
    for is_nightly in (False, True):
        alike = [m for m in messages if (m.urgency is Urgency.NIGHTLY) is is_nightly]
        yield from ([message] for message in alike if not _may_share(message))
        yield from sliced([message for message in alike if _may_share(message)], size)


def _may_share(message: DueMessage) -> bool:
    return message.task == ANALYZE_SLICE and not message.is_sent_alone


def forget(context: Context) -> None:
    """Delete old rows: cached completions and batch requests."""
    oldest = timedelta(days=context.settings.cache.max_age_days)
    with context.database.write() as session:
        cached_completions.forget(session, oldest)
        batches.forget(session, KEEP_SETTLED)
