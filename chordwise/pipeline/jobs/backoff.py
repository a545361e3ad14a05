"""How long to put work off, and pausing jobs that need a person."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from random import Random

import redis
import structlog
from sqlalchemy import update
from sqlalchemy.orm import Session

from chordwise.domain.states import WORKING_JOBS, JobStatus
from chordwise.errors import (
    AwaitingBatchError,
    ChordwiseError,
    ConfigurationError,
    ServiceUnavailableError,
    TransientError,
)
from chordwise.llm.limits import pauses
from chordwise.llm.limits.pauses import Pause, Place
from chordwise.llm.limits.shared import open_client
from chordwise.pipeline.runtime.broker import reason
from chordwise.pipeline.runtime.context import Context
from chordwise.settings import ModelSettings, PipelineSettings, Settings
from chordwise.storage import jobs, runs
from chordwise.storage.jobs import Job

log = structlog.get_logger(__name__)


def postponement(
    settings: PipelineSettings, before: int, error: ChordwiseError, random: Random
) -> timedelta:
    """Return the wait after `before` earlier ones: exponential, jittered, Retry-After honoured.

    The jitter is between half and the whole of the wait: put-off work is not due at once.
    Work that waits for a batch is due when that wait ends.
    """
    if isinstance(error, AwaitingBatchError):
        return timedelta(seconds=error.retry_after_seconds or 0.0)
    ceiling = min(
        settings.postponement_max_seconds, settings.postponement_base_seconds * 2.0**before
    )
    wait = random.uniform(ceiling / 2, ceiling)
    asked_for = error.retry_after_seconds if isinstance(error, TransientError) else None
    return timedelta(seconds=max(wait, asked_for or 0.0))


def pause(context: Context, job_id: uuid.UUID, error: ChordwiseError) -> None:
    """Pause every job of the run that asks the same model: each would fail alike.

    `chordwise retry RUN` takes them up again, with what they have reached so far.
    """
    for attempt in context.database.attempts(context.lease):
        with attempt as session:
            _pause(session, job_id, error)


def _pause(session: Session, job_id: uuid.UUID, error: ChordwiseError) -> None:
    job = jobs.get(session, job_id)
    if job is None:
        return
    session.execute(
        update(Job)
        .where(Job.run_id == job.run_id, Job.model == job.model, Job.status.in_(WORKING_JOBS))
        .values(
            status=JobStatus.PAUSED,
            error_code=error.code,
            error_message=error.what,
            hint=error.hint or None,
            lease_token=None,
            lease_until=None,
        )
    )
    runs.settle(session, job.run_id)


def resume(settings: Settings, names: Iterable[str]) -> None:
    """Let the next call to each of these models, and to their fallbacks, look whether it has to be.

    The key is not compared: the command may have another one than the workers, or
    none. Where Valkey is away the pauses last until they end by themselves.
    """
    if settings.broker_url is None:
        return
    asked = list(_models(settings, names))

    def is_asked(pause: Pause) -> bool:
        return any(pause.holds_for(each.provider, each.base_url, each.model) for each in asked)

    try:
        with open_client(settings.broker_url) as client:
            pauses.resume(client, is_asked)
    except (redis.RedisError, OSError) as error:
        log.warning("pauses.not_resumed", error=type(error).__name__)


def holding(settings: Settings) -> list[Pause]:
    """Return the pauses that hold for models of the settings, with their keys.

    Raises:
        ServiceUnavailableError: The broker is out of reach.
    """
    if settings.broker_url is None:
        return []
    ours = {
        name
        for model in _models(settings, (settings.model,))
        for name in Place.of(
            model.provider, model.base_url, model.model, settings.api_key_for(model)
        ).names
    }
    try:
        with open_client(settings.broker_url) as client:
            return [pause for pause in pauses.read(client) if pause.name in ours]
    except (redis.RedisError, OSError) as error:
        raise ServiceUnavailableError(
            f"The broker cannot be reached: {reason(error)}.", "Check CHORDWISE_BROKER_URL."
        ) from error


def _models(settings: Settings, names: Iterable[str]) -> Iterator[ModelSettings]:
    """Yield the models that may answer for each name; unknown names are left out."""
    for name in (*names, *settings.fallback):
        with suppress(ConfigurationError):
            yield from [settings.model_named(each) for each in settings.names_asked(name)]
