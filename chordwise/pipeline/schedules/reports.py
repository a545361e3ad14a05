"""A schedule that writes a report: what came of the night, as one Markdown file."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.domain.money import dollars
from chordwise.domain.states import ScheduleRunStatus
from chordwise.errors import ConfigurationError
from chordwise.pipeline.schedules.report_sections import SECTIONS
from chordwise.pipeline.schedules.work import Work
from chordwise.storage.schedules import ScheduleRun

_AT_FIRST = timedelta(days=1)
_LONGEST_CELL = 300


def report(work: Work) -> JsonObject:
    """Write what happened since the report before, or within a day; return the file's name.

    What had not ended at the due time is told as open, and its end in the report of that time.

    Raises:
        ConfigurationError: The file cannot be written.
        ServiceUnavailableError: The database cannot be reached.
    """
    with work.context.database.read() as session:
        since = _since(session, work)
        lines = list(_lines(session, work.schedule, since, work.due_at))
    path = Path(work.settings.folder) / f"{work.run_name()}.md"
    unfinished = path.with_suffix(".md.part")
    try:
        unfinished.write_text("\n".join(lines), "utf-8")
        unfinished.replace(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"The report {path} cannot be written: {reason}.") from error
    return {"file": str(path)}


def _since(session: Session, work: Work) -> datetime:
    """Return the due time of the report before, if it was written."""
    mine = select(ScheduleRun.schedule_id).where(ScheduleRun.id == work.schedule_run_id)
    before = session.scalar(
        select(ScheduleRun.due_at)
        .where(
            ScheduleRun.schedule_id == mine.scalar_subquery(),
            ScheduleRun.status == ScheduleRunStatus.SUCCEEDED,
            ScheduleRun.due_at < work.due_at,
        )
        .order_by(ScheduleRun.due_at.desc())
        .limit(1)
    )
    return before or work.due_at - _AT_FIRST


def _lines(session: Session, schedule: str, since: datetime, until: datetime) -> Iterator[str]:
    bounds = {"schedule": schedule, "since": since, "until": until}
    yield f"# Chordwise, {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC"
    for section in SECTIONS:
        found = session.execute(text(section.query), {**bounds, "most": section.most})
        yield from ("", f"## {section.heading}", "")
        names, rows = list(found.keys())[:-1], found.all()
        yield from _table(names, rows) if rows else ("Nothing.",)
        if rows and rows[0].there_are > len(rows):
            yield from ("", f"… and {rows[0].there_are - len(rows):,} more")
    yield ""


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Write rows as far as they have names."""
    yield _row(names)
    yield _row(["---"] * len(names))
    for row in rows:
        yield _row([_shown(name, value) for name, value in zip(names, row, strict=False)])


def _shown(name: str, value: object) -> object:
    if name != "usd":
        return value
    return dollars(value) if isinstance(value, Decimal) else "unknown"


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(value: object) -> str:
    """Return a value, cut off where it is long, that neither ends its cell nor becomes markup."""
    if value is None:
        return "–"
    plain = " ".join(str(value).split())
    if len(plain) > _LONGEST_CELL:
        plain = f"{plain[: _LONGEST_CELL - 1]}…"
    return html.escape(plain, quote=False).replace("\\", "\\\\").replace("|", "\\|")
