"""A schedule that writes a report: what came of the night, as one Markdown file."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from chordwise.domain.json_values import JsonObject
from chordwise.domain.states import ScheduleRunStatus
from chordwise.errors import ConfigurationError
from chordwise.pipeline.schedules.work import Work
from chordwise.storage.engine import reaching_database
from chordwise.storage.schedule_runs import ScheduleRun

_AT_FIRST = timedelta(days=1)
_SECTIONS = {
    "What was done by itself": """
        SELECT schedule, to_char(due_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS due,
            CASE WHEN finished_at > :until THEN 'running' ELSE status END AS status,
            CASE WHEN finished_at > :until THEN NULL ELSE error_message END AS reason
        FROM schedule_runs
        WHERE due_at < :until AND (finished_at IS NULL OR finished_at > :since)
            AND NOT (schedule = :schedule AND due_at = :since)
        ORDER BY due_at
    """,
    "Runs": """
        SELECT a.run, CASE WHEN r.finished_at > :until THEN 'open' ELSE a.status END AS status,
            intakes_found AS found, accepted, duplicate, succeeded, partial,
            failed + quarantined AS failed, cancelled,
            queued + running + waiting + synthesizing + paused AS unfinished,
            intakes_balance AND jobs_balance AS balances
        FROM run_accounts AS a
        INNER JOIN runs AS r ON r.id = a.run_id
        WHERE r.created_at <= :until AND (r.finished_at IS NULL OR r.finished_at > :since)
        ORDER BY r.id
    """,
    "What failed": """
        SELECT what, state, error_code AS code, count(*) AS times, min(hint) AS hint
        FROM failures
        WHERE run IN (
            SELECT name FROM runs
            WHERE created_at <= :until AND (finished_at IS NULL OR finished_at > :since)
        )
        GROUP BY 1, 2, 3
        ORDER BY times DESC, 1, 2, 3
    """,
    "What it cost": """
        SELECT provider, model, count(*) AS calls, sum(input_tokens) AS input_tokens,
            sum(output_tokens) AS output_tokens, sum(cost_usd) AS usd,
            count(*) FILTER (WHERE cost_usd IS NULL) AS unpriced
        FROM model_calls
        WHERE started_at > :since AND started_at <= :until AND NOT cache_hit
        GROUP BY 1, 2
        ORDER BY 1, 2
    """,
    "What a person should look at (at most twenty)": """
        SELECT run, source, analysis_type AS type, status,
            round(confidence::numeric, 2) AS confidence, round(quality::numeric, 2) AS quality
        FROM document_results
        WHERE created_at > :since AND created_at <= :until
            AND (needs_review OR quality < 0.8 OR status = 'partial')
        ORDER BY confidence, source
        LIMIT 20
    """,
}


def report(work: Work) -> JsonObject:
    """Write what happened since the report before, or within a day; return the file's name.

    What had not ended at the due time is told as open, and its end in the report of that time.

    Raises:
        ConfigurationError: The file cannot be written.
        ServiceUnavailableError: The database cannot be reached.
    """
    with reaching_database(), work.context.sessions() as session:
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
    for heading, query in _SECTIONS.items():
        found = session.execute(text(query), bounds)
        names, rows = list(found.keys()), found.all()
        yield from ("", f"## {heading}", "")
        if rows:
            yield _row(names)
            yield _row(["---"] * len(names))
            yield from (_row(row) for row in rows)
        else:
            yield "Nothing."
    yield ""


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(value: object) -> str:
    """Return a value so that it neither ends its cell nor becomes markup."""
    if value is None:
        return "–"
    plain = " ".join(str(value).split())
    return html.escape(plain, quote=False).replace("\\", "\\\\").replace("|", "\\|")
