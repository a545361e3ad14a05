"""The note beside a delivered file: what became of it, and why, as one JSON document."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import IntakeOutcome, JobStatus
from chordwise.storage import inbox_files
from chordwise.storage.inbox_files import InboxFile
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.runs import Run

SCHEMA_VERSION = 1
_TAKEN_IN = (IntakeOutcome.ACCEPTED, IntakeOutcome.DUPLICATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether everything that was asked of a file succeeded, and the note that says so."""

    is_done: bool
    note: JsonObject

    def text(self) -> str:
        """Return the note as it stands in the file."""
        return f"{json.dumps(self.note, ensure_ascii=False, indent=2)}\n"


def verdict(session: Session, file: InboxFile, now: datetime) -> Verdict:
    """Return what became of a file whose analyses have all ended."""
    rows = inbox_files.outcomes(session, file.id)
    jobs = {row[2].id: row[2] for row in rows if row[2] is not None}
    intakes = {row[0].id: row[0] for row in rows}
    is_done = (
        bool(intakes)
        and file.reason is None
        and all(each.outcome in _TAKEN_IN for each in intakes.values())
        and all(each.status == JobStatus.SUCCEEDED for each in jobs.values())
    )
    note: JsonObject = {
        "schema_version": SCHEMA_VERSION,
        "outcome": "done" if is_done else "failed",
        "file": file.name,
        "inbox": file.folder,
        "sha256": file.sha256,
        "byte_count": file.byte_count,
        "profile": file.profile or None,
        "taken_at": file.created_at.isoformat(),
        "delivered_at": now.isoformat(),
        "reason": file.reason,
        "message": file.message,
        "hint": file.hint,
        "run": rows[-1][1].name if rows else None,
        "run_id": str(rows[-1][1].id) if rows else None,
        "intakes": list(_intakes(rows, inbox_files.attempts(session, file.id))),
    }
    return Verdict(is_done=is_done, note=note)


def _intakes(
    rows: Sequence[Row[Intake, Run, Job | None, uuid.UUID | None]],
    attempts: Mapping[uuid.UUID, int],
) -> Iterator[JsonObject]:
    for _, group in itertools.groupby(rows, key=lambda row: row[0].id):
        members = list(group)
        intake = members[0][0]
        jobs = [row[2] for row in members if row[2] is not None]
        analyzed = [row[3] for row in members if row[3] is not None]
        yield {
            "id": str(intake.id),
            "source": intake.source,
            "outcome": intake.outcome,
            "reason": intake.reason,
            "message": intake.message,
            "hint": intake.hint,
            "document_id": _text(intake.document_id),
            "same_as_intake": _text(_first(intake, jobs, analyzed)),
            "jobs": [_job(job, attempts.get(job.id, 0)) for job in jobs],
        }


def _first(intake: Intake, jobs: Sequence[Job], analyzed: Sequence[uuid.UUID]) -> uuid.UUID | None:
    """Return the intake that this one repeats, in its run or in all that another was asked."""
    if of_run := [job.intake_id for job in jobs if job.intake_id != intake.id]:
        return of_run[0]
    return analyzed[0] if analyzed and intake.id not in analyzed else None


def _job(job: Job, attempts: int) -> JsonObject:
    return {
        "id": str(job.id),
        "analysis_type": job.analysis_type,
        "status": job.status,
        "code": job.error_code,
        "message": job.error_message,
        "hint": job.hint,
        "attempts": max(job.attempts, attempts),
        "reused_from": _text(job.reused_from) if job.status == JobStatus.SUCCEEDED else None,
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)
