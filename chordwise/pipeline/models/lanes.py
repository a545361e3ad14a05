"""Which lane holds for a run, and how long its jobs wait for batches."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement

from chordwise.domain.states import Lane
from chordwise.llm.batching import has_batches
from chordwise.settings import Settings
from chordwise.storage import clock


def lane_for(settings: Settings, model: str, wanted: Lane) -> Lane:
    """Return the lane in which a model can be asked: online where it has no Batch API.

    Raises:
        ConfigurationError: A model is unknown.
    """
    names = settings.names_asked(model)
    if wanted is Lane.BATCH and any(has_batches(settings.model_named(name)) for name in names):
        return Lane.BATCH
    return Lane.ONLINE


def batch_until(settings: Settings, lane: Lane) -> ColumnElement[datetime] | None:
    """Return until when the questions of a job wait for batches, from now on; `None` for never."""
    return spill_over(settings) if lane is Lane.BATCH else None


def spill_over(settings: Settings) -> ColumnElement[datetime]:
    """Return when what has no answer by then is asked online."""
    return clock.after(timedelta(hours=settings.batch.spill_over_hours))
