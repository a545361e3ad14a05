"""Execution of occurrences under a lease; another process resumes them after a crash."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType

import structlog
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.learning.certification import CertificationVerdict
from chordwise.domain.states import ScheduleRunStatus
from chordwise.errors import (
    ChordwiseError,
    LeaseLostError,
    RegressionError,
    ServiceUnavailableError,
)
from chordwise.pipeline.intake import experiments
from chordwise.pipeline.learning import certification, evaluation, gold, recalibration
from chordwise.pipeline.learning.certification import Bounds, Certified
from chordwise.pipeline.learning.evaluation import Evaluated
from chordwise.pipeline.runtime.context import DATABASE_TIMEOUT, Context
from chordwise.pipeline.schedules.analyses import analyze, reanalyze
from chordwise.pipeline.schedules.exports import export
from chordwise.pipeline.schedules.reports import report
from chordwise.pipeline.schedules.work import InterruptedWorkError, Kind, Work
from chordwise.settings import ScheduleSettings
from chordwise.settings.schedules import ScheduleKind
from chordwise.storage import calibrations, deliveries, pruning, schedules
from chordwise.storage.runs import Run
from chordwise.storage.schedules import End, Schedule, ScheduleRun


def prune(work: Work) -> JsonObject:
    """Delete data older than the configured ages; return the number of deleted items by kind.

    Raises:
        LeaseLostError: Another process continues the occurrence.
    """
    settings = work.settings
    deleted: JsonObject = {}
    if settings.keep_cache_days is not None:
        age = timedelta(days=settings.keep_cache_days)
        deleted["completions"] = _all_of(work, partial(pruning.forget_completions, age=age))
    if settings.keep_answers_days is not None:
        age = timedelta(days=settings.keep_answers_days)
        deleted["answers"] = _all_of(work, partial(pruning.forget_answers, age=age))
        deleted["past_results"] = _all_of(work, partial(pruning.forget_past_results, age=age))
    if settings.keep_runs_days is not None:
        deleted |= _runs(work, timedelta(days=settings.keep_runs_days))
    return deleted


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
    """Repeat a step until it finds fewer rows than its limit; return the total."""
    total = 0
    while True:
        work.require_running()
        found = work.write(step)
        total += found
        if found < pruning.STEP:
            return total


def evaluate(work: Work) -> JsonObject:
    """Evaluate the results of the profile, or all current ones; return how many were compared.

    The outcome is stored in the transaction that stores the evaluation. A process that resumes
    after a crash therefore reports the same drop and does not compare the evaluation with itself.

    Raises:
        RegressionError: The answers are worse than at the previous evaluation.
        UsageError: The gold file is invalid or matches no result.
        ConfigurationError: The profile no longer exists.
        LeaseLostError: Another process continues the occurrence.
    """
    outcome = _stored_outcome(work)
    if outcome is None:
        truth = gold.read(Path(work.settings.gold)) if work.settings.gold else None
        scope = evaluation.scope_of(work.context.settings, None, work.settings.profile)
        record = partial(_record_evaluation, work)
        evaluation.evaluate(work.context.database, scope, truth, work.write, record)
        outcome = _stored_outcome(work) or {}
    if fell := json_values.strings(outcome.get("fell")):
        raise RegressionError(f"Answers are worse than before: {'; '.join(fell)}.")
    return outcome


def _stored_outcome(work: Work) -> JsonObject | None:
    with work.context.database.read() as session:
        return session.get_one(ScheduleRun, work.schedule_run_id).outcome


def _record_evaluation(work: Work, session: Session, found: Sequence[Evaluated]) -> None:
    outcome: JsonObject = {
        "judged": sum(len(each.comparison.compared) for each in found),
        "missing": sum(len(each.comparison.missing) for each in found),
    }
    if fell := [evaluation.drop_in_words(drop) for each in found for drop in each.drops]:
        outcome["fell"] = list[JsonValue](fell)
        _announce_regression(work, session, outcome)
    session.get_one(ScheduleRun, work.schedule_run_id).outcome = outcome


def _announce_regression(work: Work, session: Session, outcome: JsonObject) -> None:
    content = {"schedule": work.schedule, "profile": work.settings.profile, **outcome}
    event = deliveries.ANSWERS_REGRESSED
    deliveries.announce_occurrence(session, work.schedule_run_id, event, content)


def recalibrate(work: Work) -> JsonObject:
    """Learn calibrations from all judgments; return how many changed and how many lack judgments.

    Raises:
        ConfigurationError: scikit-learn is not installed.
        LeaseLostError: Another process continues the occurrence.
    """
    max_error_rate = work.settings.max_error_rate
    if max_error_rate is None:
        max_error_rate = recalibration.MAX_ERROR_RATE
    with work.context.database.read() as session:
        claims = calibrations.claims(session)
    lessons = recalibration.learn(claims, max_error_rate)
    changed = work.write(lambda session: recalibration.store(session, lessons, max_error_rate))
    return {"changed": changed, "too_few": sum(lesson.curve is None for lesson in lessons)}


def certify(work: Work) -> JsonObject:
    """Certify the results of the profile; return the number of each verdict.

    The outcome is stored in the transaction that stores the certificates. A process that resumes
    after a crash therefore completes the marks and reports the same withdrawn certificates.

    Raises:
        RegressionError: Checks of later answers have withdrawn a certificate.
        ConfigurationError: The profile no longer exists.
        LeaseLostError: Another process continues the occurrence.
    """
    named = {"max_error": work.settings.max_error_rate, "risk": work.settings.risk}
    bounds = Bounds(**{name: each for name, each in named.items() if each is not None})
    scope = evaluation.scope_of(work.context.settings, None, work.settings.profile)
    record = partial(_record_certification, work) if _stored_outcome(work) is None else None
    certification.certify(work.context.database, scope, bounds, work.write, record)
    outcome = _stored_outcome(work) or {}
    if withdrawn := json_values.strings(outcome.get("withdrawn")):
        raise RegressionError(
            f"Certificates withdrawn after later checks: {', '.join(withdrawn)}.",
            "Their answers are no longer accepted; `chordwise certify` shows the checks.",
        )
    return outcome


def _record_certification(work: Work, session: Session, found: Sequence[Certified]) -> None:
    verdicts = Counter(each.certificate.verdict for each in found)
    outcome: JsonObject = {verdict: verdicts[verdict] for verdict in CertificationVerdict}
    if verdicts[CertificationVerdict.WITHDRAWN]:
        withdrawn = [
            each.unit.name or each.unit.analysis_type
            for each in found
            if each.certificate.verdict is CertificationVerdict.WITHDRAWN
        ]
        outcome = {"withdrawn": list[JsonValue](withdrawn)}
        _announce_regression(work, session, outcome)
    session.get_one(ScheduleRun, work.schedule_run_id).outcome = outcome


def experiment(work: Work) -> JsonObject:
    """Check the guardrails of running experiments; return how many variants were stopped.

    Raises:
        LeaseLostError: Another process continues the occurrence.
    """
    return {"stopped": experiments.check(work.context.database, write=work.write)}


log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 5
"""The number of attempts, each ended by the loss of its scheduler, before quarantine."""
_LEAST_LEASE = timedelta(seconds=10)
_QUARANTINED = End(
    status=ScheduleRunStatus.FAILED,
    code="quarantined",
    message=f"{MAX_ATTEMPTS} schedulers were lost while they executed it.",
    hint="Check their logs and their memory; `chordwise schedules run NAME` tries again.",
)
_DEFECT = End(
    status=ScheduleRunStatus.FAILED,
    code="internal",
    message="A bug in Chordwise stopped it.",
    hint="The scheduler's log has the details (schedule.defect).",
)

KINDS: Mapping[ScheduleKind, Kind] = {
    ScheduleKind.ANALYZE: analyze,
    ScheduleKind.REANALYZE: reanalyze,
    ScheduleKind.PRUNE: prune,
    ScheduleKind.REPORT: report,
    ScheduleKind.EXPORT: export,
    ScheduleKind.EVALUATE: evaluate,
    ScheduleKind.RECALIBRATE: recalibrate,
    ScheduleKind.CERTIFY: certify,
    ScheduleKind.EXPERIMENT: experiment,
}


class ScheduleRunner:
    """Executes one occurrence at a time; `beat` extends its lease from another thread.

    `kinds` adds kinds of work that are implemented outside the pipeline, such as the pages of
    plots.
    """

    def __init__(
        self,
        context: Context,
        is_stopped: Callable[[], bool],
        kinds: Mapping[ScheduleKind, Kind] = MappingProxyType({}),
    ) -> None:
        self._context = context
        self._is_stopped = is_stopped
        self._kinds = {**KINDS, **kinds}
        self._lease = max(context.lease, _LEAST_LEASE)
        self._current: Work | None = None

    def work(self) -> bool:
        """Claim and execute one occurrence; return false if there is none.

        Raises:
            ServiceUnavailableError: The database is unavailable. The lease expires, and a process
                resumes the occurrence.
        """
        work = self._claim()
        if work is None:
            return False
        self._current = work
        try:
            self._execute(work)
        finally:
            self._current = None
        return True

    def beat(self) -> None:
        """Extend the lease of the current occurrence, if any."""
        work = self._current
        if work is None:
            return
        with self._context.database.write() as session:
            kept = schedules.extend(session, work.schedule_run_id, work.token, self._lease)
        if not kept and self._current is work:
            log.warning("schedule.lease_lost", schedule=work.schedule)

    def _claim(self) -> Work | None:
        token = uuid.uuid4()
        with self._context.database.write() as session:
            claimed = schedules.claim(session, token, self._lease)
            if claimed is None:
                return None
            if claimed.attempts > MAX_ATTEMPTS:
                schedules.finish(session, claimed.id, token, _QUARANTINED)
                log.error("schedule.abandoned", schedule=claimed.schedule)
                return None
            return self._work(session, claimed, token)

    def _work(self, session: Session, claimed: ScheduleRun, token: uuid.UUID) -> Work | None:
        schedule = session.get_one(Schedule, claimed.schedule_id)
        try:
            settings = ScheduleSettings.model_validate(schedule.options)
        except ValidationError:  # written by another version
            log.exception("schedule.defect", schedule=claimed.schedule)
            schedules.finish(session, claimed.id, token, _DEFECT)
            return None
        if claimed.attempts > 1:
            log.warning("schedule.taken_over", schedule=claimed.schedule, attempt=claimed.attempts)
        return Work(
            context=self._context,
            settings=settings,
            schedule_run_id=claimed.id,
            schedule=claimed.schedule,
            due_at=claimed.due_at,
            token=token,
            is_stopped=self._is_stopped,
        )

    def _execute(self, work: Work) -> None:
        try:
            self._finish(work, self._outcome(work, self._kinds[work.settings.kind](work)))
        except InterruptedWorkError:
            with self._context.database.write() as session:
                schedules.release(session, work.schedule_run_id, work.token)
            log.info("schedule.released", schedule=work.schedule)
        except ServiceUnavailableError:
            raise
        except LeaseLostError as error:
            log.warning("schedule.lease_lost", schedule=work.schedule, reason=error.what)
        except ChordwiseError as error:
            log.warning("schedule.failed", schedule=work.schedule, reason=error.what)
            failed = ScheduleRunStatus.FAILED
            end = End(status=failed, code=error.code, message=error.what, hint=error.hint)
            self._finish(work, end)
        except Exception:  # retries by other schedulers would meet the same defect
            log.exception("schedule.defect", schedule=work.schedule)
            self._finish(work, _DEFECT)

    def _outcome(self, work: Work, outcome: JsonObject) -> End:
        """Return the end of the occurrence: succeeded, or waiting for the runs that it started."""
        begun = select(Run.id).where(Run.schedule_run_id == work.schedule_run_id).exists()
        with self._context.database.read() as session:
            waits = session.scalar(select(begun))
        status = ScheduleRunStatus.WAITING if waits else ScheduleRunStatus.SUCCEEDED
        return End(status=status, outcome=outcome)

    def _finish(self, work: Work, end: End) -> None:
        for attempt in self._context.database.attempts(DATABASE_TIMEOUT):
            with attempt as session:
                finished = schedules.finish(session, work.schedule_run_id, work.token, end)
        if finished:
            log.info("schedule.done", schedule=work.schedule, status=end.status)
