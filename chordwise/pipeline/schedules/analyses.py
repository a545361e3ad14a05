"""A schedule that analyzes: what its paths hold at the time, and what has become stale."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import ColumnElement, column, exists, literal, select, table
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, aliased, undefer

from chordwise.domain.json_values import JsonObject
from chordwise.domain.lanes import Lane
from chordwise.domain.tasks import AnalysisType
from chordwise.errors import ConfigurationError, UsageError
from chordwise.pipeline.intake import FileSource
from chordwise.pipeline.profiles import run_options
from chordwise.pipeline.questions import options_from
from chordwise.pipeline.run_options import RunOptions
from chordwise.pipeline.run_options import identity as identity_of
from chordwise.pipeline.schedules.work import Work, open_scheduled_run
from chordwise.readers import wildcards
from chordwise.readers.discovery import discover
from chordwise.readers.reading import ReadDocument, Reader, ReadText
from chordwise.settings import ProfileSettings
from chordwise.storage.documents import Document
from chordwise.storage.engine import reaching_database
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.runs import Run

_STALE = table("stale_results", column("job_id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleQuestion:
    """What was asked of documents whose results are stale: type, options and model of the jobs.

    `lane` is the one to ask in now: the schedule's, else that of their runs.
    """

    analysis_type: AnalysisType
    options: JsonObject
    model: str
    lane: Lane

    def asked_anew(self, name: str) -> RunOptions:
        """Return the options of a run that asks the same."""
        return RunOptions(
            types=(self.analysis_type,),
            analysis=options_from(self.options),
            model=self.model,
            name=name,
            nightly=True,
            lane=self.lane,
        )

    def __str__(self) -> str:
        asked = [self.analysis_type, self.options, self.model, self.lane]
        return json.dumps(asked, sort_keys=True)


def analyze(work: Work) -> JsonObject:
    """Take in what the paths hold, as one run; without anything there is none.

    Raises:
        UsageError: A path leads nowhere, or the profile contradicts itself.
        ConfigurationError: The profile or its model is unknown.
        LeaseLostError: Somebody else goes on with it.
        ServiceUnavailableError: The database stayed away.
    """
    settings = work.context.settings
    profile = settings.profiles.get(work.settings.profile, ProfileSettings())
    if work.settings.profile not in {"", *settings.profiles}:
        raise ConfigurationError(
            f"There is no profile “{work.settings.profile}” any more.",
            "Change the schedule, or the scheduler's chordwise.toml.",
        )
    lane = work.settings.lane or profile.lane
    options = replace(run_options(settings, profile, work.run_name()), nightly=True, lane=lane)
    paths = [path for path in work.settings.paths if holds_something(path)]
    if not paths:
        return {"found": 0}
    submission = open_scheduled_run(work, options)
    with Reader(settings.readers) as reader:
        source = FileSource(reader, io.BytesIO())
        for file in discover(paths):
            work.go_on()
            for document in source.read(file, options.columns):
                submission.take_in_once(document)
    submission.close()
    return {"found": submission.found}


def reanalyze(work: Work) -> JsonObject:
    """Ask anew what the view `stale_results` has, from the stored texts, a run for each question.

    A document that was asked the new question already, with whatever success, is left out.

    Raises:
        LeaseLostError: Somebody else goes on with it.
        ServiceUnavailableError: The database stayed away.
    """
    found = unknown = 0
    with reaching_database(), work.context.sessions() as session:
        questions = _stale_questions(session, _lane(work))
    for question in questions:
        options = question.asked_anew(work.run_name(str(question)))
        try:
            identity = identity_of(work.context, question.analysis_type, options)
        except ConfigurationError:
            unknown += 1  # its model is not configured any more
        else:
            found += _ask_anew(work, question, options, identity)
    return {"found": found, "questions": len(questions), "unknown_models": unknown}


def holds_something(path: str) -> bool:
    """Tell whether there is anything; an empty folder is no mistake, a missing one is.

    Raises:
        UsageError: The path leads nowhere.
    """
    try:
        next(discover([path]))
    except UsageError as error:
        folder = wildcards.split(path)[0] if wildcards.has_wildcard(path) else path
        if Path(folder).is_dir():
            return False
        hint = "Make its folder, or mount it, where the scheduler runs; an empty one is fine."
        raise UsageError(error.what, hint) from error
    return True


def _lane(work: Work) -> ColumnElement[str]:
    """Return in which lane a stale job is asked anew: the schedule's, else that of its run."""
    wanted = work.settings.lane
    return Run.lane.expression if wanted is None else literal(wanted.value)


def _stale_questions(session: Session, lane: ColumnElement[str]) -> Sequence[StaleQuestion]:
    asked_in = lane.label("asked_in")
    statement = (
        select(Job.analysis_type, Job.options, Job.model, asked_in)
        .join(Run, Run.id == Job.run_id)
        .where(Job.id.in_(select(_STALE.c.job_id)))
        .distinct()
        .order_by(Job.analysis_type, Job.model, Job.options, asked_in)
    )
    return [
        StaleQuestion(
            analysis_type=AnalysisType(kind), options=options, model=model, lane=Lane(lane_name)
        )
        for kind, options, model, lane_name in session.execute(statement)
    ]


def _ask_anew(work: Work, question: StaleQuestion, options: RunOptions, identity: str) -> int:
    with reaching_database(), work.context.sessions() as session:
        waiting = _stale_jobs(session, question, identity, _lane(work))
    if not waiting:
        return 0
    submission = open_scheduled_run(work, options)
    for job_id in waiting:
        work.go_on()
        with reaching_database(), work.context.sessions() as session:
            document = _read_again(session, job_id)
        submission.take_in(document)
    submission.close()
    return submission.found


def _stale_jobs(
    session: Session, question: StaleQuestion, identity: str, lane: ColumnElement[str]
) -> Sequence[uuid.UUID]:
    """Return the newest stale job for each document that was not asked the new question yet."""
    later = aliased(Job)
    asked = exists().where(later.document_id == Job.document_id, later.options_hash == identity)
    newest = (
        select(Job.id, Job.document_id)
        .join(Run, Run.id == Job.run_id)
        .where(
            Job.id.in_(select(_STALE.c.job_id)),
            Job.analysis_type == question.analysis_type,
            Job.options == question.options,
            Job.model == question.model,
            lane == question.lane,
            ~asked,
        )
        .ext(distinct_on(Job.document_id))
        .order_by(Job.document_id, Job.id.desc())
    )
    return [job_id for job_id, _ in session.execute(newest)]


def _read_again(session: Session, job_id: uuid.UUID) -> ReadDocument:
    """Return a stored document as its reader had found it."""
    intake, document = session.execute(
        select(Intake, Document)
        .join(Job, Job.intake_id == Intake.id)
        .join(Document, Document.id == Job.document_id)
        .where(Job.id == job_id)
        .options(undefer(Document.text))
    ).one()
    return ReadDocument(
        source=intake.source,
        sha256=intake.sha256 or "",
        byte_count=intake.byte_count or 0,
        content=ReadText(
            text=document.text, media_type=document.media_type, title=document.title or ""
        ),
    )
