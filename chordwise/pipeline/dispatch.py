"""Sending what committed transactions promised: the outbox, in batches, by any number of hands."""

from __future__ import annotations

from datetime import timedelta

from chordwise.domain import json_values
from chordwise.pipeline.context import Context
from chordwise.storage import outbox
from chordwise.storage.engine import reaching_database

BATCH = 200
KEEP_SENT = timedelta(days=1)


def dispatch(context: Context) -> int:
    """Send a batch of the outbox; return how many messages went out.

    A crash between sending and committing sends a message twice, which is harmless.

    Raises:
        ServiceUnavailableError: Database or broker cannot be reached; nothing is lost.
    """
    with reaching_database(), context.sessions.begin() as session:
        messages = outbox.take(session, BATCH)
        for message in messages:
            context.messenger.send(message.task, json_values.strings(message.arguments))
        if messages:
            outbox.mark_sent(session, messages)
        return len(messages)


def forget(context: Context) -> None:
    """Delete messages that were sent long ago."""
    with reaching_database(), context.sessions.begin() as session:
        outbox.forget_sent(session, KEEP_SENT)
