"""The note beside a delivered file: what became of it, and why, as one JSON document."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import IO, TypeAlias

from sqlalchemy import Row

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import JobStatus
from chordwise.storage.inbox_files import InboxFile
from chordwise.storage.intakes import Intake
from chordwise.storage.jobs import Job
from chordwise.storage.runs import Run

SCHEMA_VERSION = 1
_INDENT = 2


Outcome: TypeAlias = Row[uuid.UUID, Intake, Job | None, uuid.UUID | None, int | None]
"""A row of `inbox_files.outcomes`."""


def write(
    note: IO[str],
    file: InboxFile,
    run: Run | None,
    outcomes: Iterable[Outcome],
    now: datetime,
    *,
    is_done: bool,
) -> None:
    """Write the note of a file whose analyses have all ended; `is_done`: all of them succeeded.

    It is written piece by piece: a table may hold a hundred thousand documents. The outcomes have
    to be of one state of the database.
    """
    head: JsonObject = {
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
        "run": run.name if run else None,
        "run_id": str(run.id) if run else None,
    }
    note.write(_laid_out(head).removesuffix("\n}") + ',\n  "intakes": [')
    before = ""
    for intake in _intakes(outcomes):
        note.write(f"{before}\n{_laid_out(intake, 2 * _INDENT)}")
        before = ","
    note.write("\n  ]\n}\n" if before else "]\n}\n")


def _laid_out(value: JsonObject, indent: int = 0) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=_INDENT)
    return " " * indent + text.replace("\n", "\n" + " " * indent)


def _intakes(rows: Iterable[Outcome]) -> Iterator[JsonObject]:
    for _, group in itertools.groupby(rows, key=lambda row: row[1].id):
        members = list(group)
        intake = members[0][1]
        jobs = [(row[2], row[4] or 0) for row in members if row[2] is not None]
        analyzed = [row[3] for row in members if row[3] is not None]
        yield {
            "id": str(intake.id),
            "source": intake.source,
            "outcome": intake.outcome,
            "reason": intake.reason,
            "message": intake.message,
            "hint": intake.hint,
            "document_id": _text(intake.document_id),
            "same_as_intake": _text(_first(intake, [job for job, _ in jobs], analyzed)),
            "jobs": [_job(job, claims) for job, claims in jobs],
        }


def _first(intake: Intake, jobs: Sequence[Job], analyzed: Sequence[uuid.UUID]) -> uuid.UUID | None:
    """Return the intake that this one repeats, in its run or in all that another was asked."""
    if of_run := [job.intake_id for job in jobs if job.intake_id != intake.id]:
        return of_run[0]
    return analyzed[0] if analyzed and intake.id not in analyzed else None


def _job(job: Job, claims: int) -> JsonObject:
    return {
        "id": str(job.id),
        "analysis_type": job.analysis_type,
        "status": job.status,
        "code": job.error_code,
        "message": job.error_message,
        "hint": job.hint,
        "attempts": max(job.attempts, claims),
        "reused_from": _text(job.reused_from) if job.status == JobStatus.SUCCEEDED else None,
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)
