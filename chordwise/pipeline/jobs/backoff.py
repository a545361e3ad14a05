"""Postpones work after transient errors, and pauses jobs that need intervention."""

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
    TransientError,
)
from chordwise.llm.limits import pauses
from chordwise.llm.limits.pauses import ModelEndpoint, Pause
from chordwise.llm.limits.shared import open_client
from chordwise.pipeline.runtime import broker
from chordwise.pipeline.runtime.context import Context
from chordwise.settings import ModelSettings, PipelineSettings, Settings
from chordwise.storage import jobs, runs
from chordwise.storage.jobs import Job

log = structlog.get_logger(__name__)


def postponement(
    settings: PipelineSettings, before: int, error: ChordwiseError, random: Random
) -> timedelta:
    """Return the wait after `before` earlier ones: exponential, with jitter, at least Retry-After.

    The jitter is between half of the wait and all of it, so that postponed work is not due all at
    once. Work that waits for a batch is due when the batch is.
    """
    if isinstance(error, AwaitingBatchError):
        return timedelta(seconds=error.retry_after_seconds or 0.0)
    ceiling = min(
        settings.postponement_max_seconds, settings.postponement_base_seconds * 2.0**before
    )
    wait = random.uniform(ceiling / 2, ceiling)
    requested_seconds = error.retry_after_seconds if isinstance(error, TransientError) else None
    return timedelta(seconds=max(wait, requested_seconds or 0.0))


def pause(context: Context, job_id: uuid.UUID, error: ChordwiseError) -> None:
    """Pause all jobs of the run that ask the same model, because each would fail in the same way.

    `chordwise retry RUN` continues them; results of chunks that have ended are kept.
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
    """Let the next call to each of these models and fallbacks probe whether its pause can end.

    Keys are not compared, because a command may have another key than the workers, or none. If
    Valkey is unavailable, the pauses end by their own timeout.
    """
    if settings.broker_url is None:
        return
    models = list(_models(settings, names))

    def applies(pause: Pause) -> bool:
        return any(pause.holds_for(each.provider, each.base_url, each.model) for each in models)

    try:
        with open_client(settings.broker_url) as client:
            pauses.resume(client, applies)
    except (redis.RedisError, OSError) as error:
        log.warning("pauses.not_resumed", error=type(error).__name__)


def holding(settings: Settings) -> list[Pause]:
    """Return the active pauses that apply to the models and API keys in the settings.

    Raises:
        ServiceUnavailableError: The broker cannot be reached.
        ConfigurationError: The broker has no database of the number in its address.
    """
    if settings.broker_url is None:
        return []
    ours = {
        name
        for model in _models(settings, (settings.model,))
        for name in ModelEndpoint.of(
            model.provider, model.base_url, model.model, settings.api_key_for(model)
        ).names
    }
    with broker.translating_errors(), open_client(settings.broker_url) as client:
        return [pause for pause in pauses.read(client) if pause.name in ours]


def _models(settings: Settings, names: Iterable[str]) -> Iterator[ModelSettings]:
    """Yield the models that may answer for each name; unknown names are skipped."""
    for name in (*names, *settings.fallback):
        with suppress(ConfigurationError):
            yield from [settings.model_named(each) for each in settings.selected_names(name)]
