"""Schedules that export a view, a table or a query to a new file for each occurrence."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy.orm import Session

from chordwise.domain.export_formats import ExportFormat
from chordwise.domain.json_values import JsonObject
from chordwise.pipeline.exports import selection, writers
from chordwise.pipeline.exports.selection import Selection
from chordwise.pipeline.exports.writers import new_file
from chordwise.pipeline.runs.user_sql import Row
from chordwise.pipeline.schedules.work import Work
from chordwise.settings import ScheduleSettings
from chordwise.storage.schedules import ScheduleRun


def export(work: Work) -> JsonObject:
    """Export to a new file; return its name and its number of rows.

    The name is stored before the file is written. After a crash, the next process finds the file
    under this name and does not write it again; the number of rows is then omitted.

    Raises:
        UsageError: The view or the folder does not exist, or PostgreSQL refuses the statement.
        ConfigurationError: The library of the format is not installed.
        LeaseLostError: Another process continues the occurrence.
    """
    writers.require(format_of(work.settings))
    path = _path_of(work)
    if os.path.lexists(path):
        return {"file": str(path)}
    return {"file": str(path), "rows": _write(work, path)}


def format_of(schedule: ScheduleSettings) -> ExportFormat:
    """Return the format of a schedule's files; CSV by default."""
    return schedule.format or ExportFormat.CSV


def selection_of(schedule: ScheduleSettings) -> Selection | str:
    """Return the query or the view that a schedule exports."""
    return schedule.sql or Selection(name=schedule.view)


def _write(work: Work, path: Path) -> int:
    address = work.context.settings.require_sql_url()
    with selection.opened(address, selection_of(work.settings)) as table, new_file(path) as sink:
        watched = replace(table, batches=_until_stopped(work, table.batches))
        return writers.write(sink, watched, format_of(work.settings), raw=work.settings.raw)


def _until_stopped(work: Work, batches: Iterator[Sequence[Row]]) -> Iterator[Sequence[Row]]:
    for batch in batches:
        work.require_running()
        yield batch


def _path_of(work: Work) -> Path:
    """Return the file of this occurrence: the stored name, or a new one that does not exist yet."""

    def record_path(session: Session) -> int:
        row = session.get_one(ScheduleRun, work.schedule_run_id)
        if row.outcome is None:
            row.outcome = {"writing": str(_free_path(work))}
        return 1

    work.write(record_path)
    with work.context.database.read() as session:
        row = session.get_one(ScheduleRun, work.schedule_run_id)
        return Path(str((row.outcome or {})["writing"]))


def _free_path(work: Work) -> Path:
    stem = f"{work.schedule}-{work.due_at:%Y%m%d-%H%M}"
    names = itertools.chain((stem,), (f"{stem}-{number}" for number in itertools.count(2)))
    paths = (Path(work.settings.folder) / f"{n}.{format_of(work.settings)}" for n in names)
    return next(path for path in paths if not os.path.lexists(path))
