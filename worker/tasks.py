"""The Celery tasks: each calls a use case, and none raises an error into a chord."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed, wait
from functools import partial
from typing import ParamSpec, TypeVar
from uuid import UUID

import structlog
from celery import Celery
from celery.exceptions import Ignore

from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.jobs.analyze_chunk import ChunkOutcome, SliceClaims, analyze_chunk
from chordwise.pipeline.jobs.fan_out import fan_out
from chordwise.pipeline.jobs.synthesize import synthesize, synthesize_claimed
from chordwise.pipeline.runtime import messages
from chordwise.pipeline.runtime.context import Context
from worker.rejections import Rejection, Rejections
from worker.threads import ChunkThreads

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")

log = structlog.get_logger(__name__)


def register(app: Celery, context: Context, rejections: Rejections, threads: ChunkThreads) -> None:
    """Register the tasks with the application; their names are a contract.

    `worker.rejections` has checked the form of the ids, but not whether they exist.
    """

    def fan_out_task(job_id: str) -> None:
        if fan_out(context, UUID(job_id), partial(analyze_slice, context, threads)) is None:
            rejections.add(Rejection.UNKNOWN_WORK, messages.CONTROL_QUEUE)

    def analyze_slice_task(*chunk_ids: str) -> None:
        outcomes = analyze_slice(context, threads, [UUID(chunk_id) for chunk_id in chunk_ids])
        for _ in range(outcomes.count(ChunkOutcome.UNKNOWN)):
            rejections.add(Rejection.UNKNOWN_WORK, messages.CHUNK_QUEUE)
        if any(outcome is not ChunkOutcome.ENDED for outcome in outcomes):
            raise Ignore

    def synthesize_task(job_id: str) -> None:
        threads.mark_begun()
        if not synthesize(context, UUID(job_id)):
            rejections.add(Rejection.UNKNOWN_WORK, messages.CONTROL_QUEUE)

    app.task(name=messages.FAN_OUT, ignore_result=True)(never_raising(fan_out_task))
    app.task(name=messages.ANALYZE_SLICE)(never_raising(analyze_slice_task))
    app.task(name=messages.SYNTHESIZE, ignore_result=True)(never_raising(synthesize_task))


def analyze_slice(
    context: Context, threads: ChunkThreads, chunk_ids: Sequence[UUID]
) -> Sequence[ChunkOutcome]:
    """Analyze the chunks of a message; those that start together are claimed together.

    A job whose last chunk claims its synthesis is synthesized here, without a message, and does not
    wait for the chunks of other jobs.

    Raises:
        ServiceUnavailableError: The database could not be reached for one of them.
    """
    begun: list[Future[ChunkOutcome]] = []
    slices = messages.sliced(chunk_ids, threads.count)
    claims = [SliceClaims(context, ids, claims_syntheses=True) for ids in slices]
    for ids, claim in zip(slices, claims, strict=True):
        begun += threads.begin(partial(analyze_chunk, context, claims=claim), ids)
    syntheses: list[Future[None]] = []
    for _ in as_completed(begun):
        for claim in claims:
            while claim.syntheses:
                lease, claimed = claim.syntheses.popleft()
                synthesis = partial(synthesize_claimed, context, lease)
                syntheses += threads.begin(synthesis, [claimed])
    wait(syntheses)
    return [future.result() for future in begun]


def never_raising(task: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Turn errors into a log line and `Ignore`; recovery repeats the work from PostgreSQL.

    A header task that raised would prevent the chord's body; one that returned early would start it
    too soon.
    """

    @functools.wraps(task)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
        try:
            return task(*args, **kwargs)
        except Ignore:
            raise
        except ServiceUnavailableError as error:
            log.warning("task.postponed", task=task.__name__, reason=error.what)
        except Exception:
            log.exception("task.defect", task=task.__name__)
        raise Ignore

    return run
