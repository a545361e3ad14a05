"""A schedule that prunes: what is older than its ages, in many small transactions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.pipeline.schedules.work import Work
from chordwise.storage import pruning


def prune(work: Work) -> JsonObject:
    """Delete what is older than the ages that are set; return how much of each kind.

    Raises:
        LeaseLostError: Somebody else goes on with it.
        ServiceUnavailableError: The database stayed away.
    """
    settings = work.settings
    deleted: JsonObject = {}
    if settings.keep_cache_days is not None:
        age = timedelta(days=settings.keep_cache_days)
        deleted["completions"] = _all_of(work, partial(pruning.forget_completions, age=age))
    if settings.keep_answers_days is not None:
        deleted |= _answers(work, timedelta(days=settings.keep_answers_days))
    if settings.keep_runs_days is not None:
        deleted |= _runs(work, timedelta(days=settings.keep_runs_days))
    return deleted


def _answers(work: Work, age: timedelta) -> JsonObject:
    return {
        "answers": _all_of(work, partial(pruning.forget_answers, age=age)),
        "past_results": _all_of(work, partial(pruning.forget_past_results, age=age)),
    }


def _runs(work: Work, age: timedelta) -> JsonObject:
    with work.context.database.read() as session:
        old = pruning.old_runs(session, age)
    runs = jobs = 0
    for run_id in old:
        jobs += _all_of(work, partial(pruning.forget_jobs, run_id=run_id, age=age))
        runs += work.write(partial(pruning.forget_run, run_id=run_id, age=age))
    documents = _all_of(work, partial(pruning.forget_documents, age=age))
    return {"runs": runs, "jobs": jobs, "documents": documents}


def _all_of(work: Work, step: Callable[[Session], int]) -> int:
    """Repeat a step until it finds less than it could take; return how much it found in all."""
    total = 0
    while True:
        work.go_on()
        found = work.write(step)
        total += found
        if found < pruning.STEP:
            return total
