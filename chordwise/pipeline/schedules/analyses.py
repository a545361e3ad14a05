"""Schedules that analyze: new documents in their paths, and documents with stale results."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import ColumnElement, column, exists, func, literal, select, table
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, aliased

from chordwise.domain.analysis_tasks import AnalysisType, options_from
from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import Lane
from chordwise.errors import ConfigurationError, UsageError
from chordwise.pipeline.intake.found_files import FileSource, entry_of
from chordwise.pipeline.intake.run_options import RunOptions, run_options
from chordwise.pipeline.intake.run_options import identity as identity_of
from chordwise.pipeline.schedules.work import Work, take_in_all
from chordwise.readers import discovery
from chordwise.readers.discovery import discover
from chordwise.readers.reader import Reader
from chordwise.settings import ProfileSettings
from chordwise.storage.intakes import Intake, IntakeEntry
from chordwise.storage.jobs import Job
from chordwise.storage.runs import Run

_STALE = table("stale_results", column("job_id"))
_SAVED_AS: ColumnElement[str] = func.coalesce(Run.saved_as, "")
_PROFILE: ColumnElement[str] = func.coalesce(Run.options["profile"].as_string(), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleQuestion:
    """A question with stale results: the analysis type, the options and the model of their jobs.

    `lane` is the lane to ask the question in: that of the schedule, or else of the runs. `saved_as`
    is the answer table and `profile` the profile of the runs; either may be empty.
    """

    analysis_type: AnalysisType
    options: JsonObject
    model: str
    lane: Lane
    saved_as: str = ""
    profile: str = ""

    def run_options(self, name: str) -> RunOptions:
        """Return the options of a run that asks this question again."""
        return RunOptions(
            types=(self.analysis_type,),
            analysis=options_from(self.options),
            model=self.model,
            name=name,
            nightly=True,
            lane=self.lane,
            save_as=self.saved_as,
            profile=self.profile,
        )

    def __str__(self) -> str:
        asked = [self.analysis_type, self.options, self.model, self.lane]
        asked += [self.saved_as] if self.saved_as or self.profile else []
        asked += [self.profile] if self.profile else []
        return json.dumps(asked, sort_keys=True)


def analyze(work: Work) -> JsonObject:
    """Take in the documents in the schedule's paths as one run, or create no run if there are none.

    Raises:
        UsageError: A path does not exist, or the profile is contradictory.
        ConfigurationError: The profile or its model is unknown.
        LeaseLostError: Another process continues the occurrence.
    """
    settings = work.context.settings
    profile = settings.profiles.get(work.settings.profile, ProfileSettings())
    if work.settings.profile not in {"", *settings.profiles}:
        raise ConfigurationError(
            f"There is no profile “{work.settings.profile}” any more.",
            "Change the schedule, or the scheduler's chordwise.toml.",
        )
    lane = work.settings.lane or profile.lane
    asked = run_options(settings, profile, work.run_name(), work.settings.profile)
    options = replace(asked, nightly=True, lane=lane)

    def find_entries() -> list[IntakeEntry]:
        paths = [path for path in work.settings.paths if matches_any_file(path)]
        return [entry_of(file) for file in discover(paths)]

    with Reader(settings.readers) as reader:
        source = FileSource(reader, io.BytesIO())
        return {"found": take_in_all(work, options, source, find_entries)}


def reanalyze(work: Work) -> JsonObject:
    """Ask the questions of the view `stale_results` again about the stored texts, one run for each.

    A document is omitted if it has a job with the current question, whatever its outcome.

    Raises:
        LeaseLostError: Another process continues the occurrence.
    """
    found = unknown = 0
    with work.context.database.read() as session:
        questions = _stale_questions(session, _lane(work))
    for question in questions:
        options = question.run_options(work.run_name(str(question)))
        try:
            identity = identity_of(work.context.settings, question.analysis_type, options)
        except ConfigurationError:
            unknown += 1  # its model is no longer configured
        else:
            found += _ask_again(work, question, options, identity)
    return {"found": found, "questions": len(questions), "unknown_models": unknown}


def matches_any_file(path: str) -> bool:
    """Return whether a path matches any file; false for an existing but empty folder.

    Raises:
        UsageError: The path, or the folder of its pattern, does not exist.
    """
    try:
        next(discover([path]))
    except UsageError as error:
        folder = discovery.split(path)[0] if discovery.has_wildcard(path) else path
        if Path(folder).is_dir():
            return False
        hint = "Create or mount its folder where the scheduler runs; it may be empty."
        raise UsageError(error.what, hint) from error
    return True


def _lane(work: Work) -> ColumnElement[str]:
    """Return the lane to ask a stale job in: that of the schedule, or else of the job's run."""
    wanted = work.settings.lane
    return Run.lane.expression if wanted is None else literal(wanted.value)


def _stale_questions(session: Session, lane: ColumnElement[str]) -> Sequence[StaleQuestion]:
    asked_in = lane.label("asked_in")
    statement = (
        select(Job.analysis_type, Job.options, Job.model, asked_in, _SAVED_AS, _PROFILE)
        .join(Run, Run.id == Job.run_id)
        .where(Job.id.in_(select(_STALE.c.job_id)))
        .distinct()
        .order_by(Job.analysis_type, Job.model, Job.options, asked_in, _SAVED_AS, _PROFILE)
    )
    return [
        StaleQuestion(
            analysis_type=AnalysisType(kind),
            options=options,
            model=model,
            lane=Lane(lane_name),
            saved_as=saved_as,
            profile=profile,
        )
        for kind, options, model, lane_name, saved_as, profile in session.execute(statement)
    ]


def _ask_again(work: Work, question: StaleQuestion, options: RunOptions, identity: str) -> int:
    def find_entries() -> list[IntakeEntry]:
        with work.context.database.read() as session:
            jobs = _stale_jobs(session, question, identity, _lane(work))
        return [IntakeEntry(source=source, job_id=job_id) for job_id, source in jobs]

    settings = work.context.settings.readers
    with Reader(settings) as reader:  # starts no process, as there is no file
        return take_in_all(work, options, FileSource(reader, io.BytesIO()), find_entries)


def _stale_jobs(
    session: Session, question: StaleQuestion, identity: str, lane: ColumnElement[str]
) -> Sequence[tuple[uuid.UUID, str]]:
    """Return the newest stale job for each document without a job of the new question.

    Each job comes with the name under which its document was taken in.
    """
    later = aliased(Job)
    asked = exists().where(later.document_id == Job.document_id, later.options_hash == identity)
    newest = (
        select(Job.id, Intake.source)
        .join(Run, Run.id == Job.run_id)
        .join(Intake, Intake.id == Job.intake_id)
        .where(
            Job.id.in_(select(_STALE.c.job_id)),
            Job.analysis_type == question.analysis_type,
            Job.options == question.options,
            Job.model == question.model,
            lane == question.lane,
            _SAVED_AS.in_([question.saved_as]),
            _PROFILE.in_([question.profile]),
            ~asked,
        )
        .ext(distinct_on(Job.document_id))
        .order_by(Job.document_id, Job.id.desc())
    )
    return [(job_id, source) for job_id, source in session.execute(newest)]
