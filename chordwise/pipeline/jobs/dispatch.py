"""Sends the messages of committed transactions from the outbox, in batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

from sqlalchemy.orm import Session

from chordwise.domain import json_values
from chordwise.pipeline.runtime.context import Context
from chordwise.pipeline.runtime.messages import ANALYZE_SLICE, SYNTHESIZE, slice_size, sliced
from chordwise.storage import batch_requests, budgets, cached_completions, jobs, outbox
from chordwise.storage.outbox import OutboxMessage

BATCH = 200
KEEP_SENT = timedelta(days=1)
KEEP_SETTLED = timedelta(days=7)
_MAX_SECONDS = 5.0


def dispatch(context: Context) -> int:
    """Send a batch of the outbox and return the number of messages; fewer if the broker is slow.

    A crash between sending and committing sends a message twice, which is harmless. PostgreSQL ends
    a transaction that is idle for a lease, so a batch has to be sent within that time: otherwise it
    would be sent again without end.

    Raises:
        ServiceUnavailableError: The database or broker cannot be reached; nothing is lost.
    """
    with context.database.write() as session:
        ends_at = time.monotonic() + min(_MAX_SECONDS, context.lease.total_seconds() / 4)
        wanted, sent = _separate_overtaken(session, outbox.lock_due(session, BATCH))
        for group in _packed(wanted, slice_size(context.settings)):
            ids = [id_ for each in group for id_ in json_values.strings(each.arguments)]
            context.messenger.send(group[0].task, ids)
            sent.extend(group)
            if time.monotonic() > ends_at:
                break
        if sent:
            outbox.mark_sent(session, sent)
        return len(sent)


def _separate_overtaken(
    session: Session, messages: Sequence[OutboxMessage]
) -> tuple[list[OutboxMessage], list[OutboxMessage]]:
    """Separate messages that are still needed from syntheses that are claimed or stored by now."""
    syntheses = {
        each.id: json_values.strings(each.arguments)[-1]
        for each in messages
        if each.task == SYNTHESIZE
    }
    past = jobs.past_synthesis(session, set(syntheses.values()))
    wanted: list[OutboxMessage] = []
    overtaken: list[OutboxMessage] = []
    for each in messages:
        (overtaken if syntheses.get(each.id) in past else wanted).append(each)
    return wanted, overtaken


def _packed(messages: Sequence[OutboxMessage], size: int) -> Iterator[Sequence[OutboxMessage]]:
    """Yield the messages that are sent as one: chunks in slices of up to `size`, others alone.

    A chunk on its last attempt is sent alone.
    """
    shared = [each for each in messages if each.task == ANALYZE_SLICE and not each.is_sent_alone]
    yield from sliced(shared, size)
    yield from ([each] for each in messages if each.task != ANALYZE_SLICE or each.is_sent_alone)


def forget(context: Context) -> None:
    """Delete old rows: sent messages, cached completions, settled reservations, batch requests."""
    oldest = timedelta(days=context.settings.cache.max_age_days)
    with context.database.write() as session:
        outbox.forget_sent(session, KEEP_SENT)
        cached_completions.forget(session, oldest)
        budgets.forget_settled(session, KEEP_SETTLED)
        batch_requests.forget(session, KEEP_SETTLED)
