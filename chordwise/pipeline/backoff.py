"""How long to put work off, and how patiently to store what has been paid for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import TypeVar

from sqlalchemy.orm import Session

from chordwise.errors import AwaitingBatchError, ChordwiseError, TransientError
from chordwise.pipeline.context import Context
from chordwise.settings import PipelineSettings
from chordwise.storage.engine import persistently

Stored = TypeVar("Stored")


def postponement(
    settings: PipelineSettings, before: int, error: ChordwiseError, random: Random
) -> timedelta:
    """Return the wait after `before` earlier ones: exponential, jittered, Retry-After honoured.

    The jitter is between half and the whole of the wait: put-off work is not due at once.
    Whoever waits for a batch is due when nobody waits for it any more.
    """
    if isinstance(error, AwaitingBatchError):
        return timedelta(seconds=error.retry_after_seconds or 0.0)
    ceiling = min(
        settings.postponement_max_seconds, settings.postponement_base_seconds * 2.0**before
    )
    wait = random.uniform(ceiling / 2, ceiling)
    asked_for = error.retry_after_seconds if isinstance(error, TransientError) else None
    return timedelta(seconds=max(wait, asked_for or 0.0))


def store(context: Context, write: Callable[[Session], Stored]) -> Stored:
    """Run `write` in a transaction, again and again while the database is away.

    `write` has to bear being repeated after it was committed: of a commit whose answer is lost
    nobody knows whether it was made.

    Raises:
        ServiceUnavailableError: The database stayed away for the length of a lease.
    """
    return persistently(context.sessions, context.lease, write)


def store_answer(context: Context, write: Callable[[Session], Stored]) -> Stored:
    """Do the same for what has been paid for, as long as `pipeline.outage_seconds`.

    Raises:
        ServiceUnavailableError: The database stayed away for longer.
    """
    patience = timedelta(seconds=context.settings.pipeline.outage_seconds)
    return persistently(context.sessions, patience, write)
