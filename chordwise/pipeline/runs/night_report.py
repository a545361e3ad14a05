"""The report of a night: sections, each a query, as Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import text
from sqlalchemy.orm import Session

from chordwise.domain.money import dollars
from chordwise.domain.visible_text import visible

_LONGEST_CELL = 300
_MARKUP = re.compile(r"[\\|\[\]`*]")  # of tables, links, images, code and emphasis


def markdown(session: Session, since: datetime, until: datetime, schedule: str = "") -> str:
    """Return a report on the activity after `since` and up to `until`.

    Work that had not ended at that time is reported as open; its end is in a later report. The
    occurrence of `schedule` that is due at `since`, the previous report, is omitted.
    """
    return "\n".join(_lines(session, schedule, since, until))


def _lines(session: Session, schedule: str, since: datetime, until: datetime) -> Iterator[str]:
    bounds = {"schedule": schedule, "since": since, "until": until}
    yield f"# Chordwise, {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC"
    for section in SECTIONS:
        result = session.execute(text(section.query), {**bounds, "most": section.most})
        yield from ("", f"## {section.heading}", "")
        names, rows = list(result.keys())[:-1], result.all()
        if not rows:
            yield "Nothing."
            continue
        yield _row([name.replace("_", " ") for name in names])
        yield _row(["---"] * len(names))
        for row in rows:
            yield _row([_cell(name, value) for name, value in zip(names, row, strict=False)])
        if rows[0].there_are > len(rows):
            yield from ("", f"… and {rows[0].there_are - len(rows):,} more")
    yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(name: str, value: object) -> str:
    """Return a value as the text of a table cell, shortened and with its markup escaped."""
    if name == "usd":
        value = dollars(value) if isinstance(value, Decimal) else "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    plain = visible(" ".join(str(value).split()))
    if len(plain) > _LONGEST_CELL:
        plain = f"{plain[: _LONGEST_CELL - 1]}…"
    return html.escape(_MARKUP.sub(r"\\\g<0>", plain), quote=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSection:
    """A table of a report; the query has the parameters `since`, `until`, `schedule` and `most`.

    It returns at most `most` rows, and the number of all rows in the last column. The column `usd`
    is an amount of money.
    """

    heading: str
    query: str
    most: int


_FEW = 20
_MANY = 100
DONE = ReportSection(
    heading="Schedules",
    query="""
        SELECT schedule, to_char(due_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS due,
            CASE WHEN finished_at > :until THEN 'running' ELSE status END AS status,
            CASE WHEN finished_at > :until THEN NULL ELSE error_message END AS reason,
            count(*) OVER () AS there_are
        FROM schedule_runs
        WHERE due_at < :until AND (finished_at IS NULL OR finished_at > :since)
            AND NOT (schedule = :schedule AND due_at = :since)
        ORDER BY due_at
        LIMIT :most
    """,
    most=_MANY,
)
RUNS = ReportSection(
    heading="Runs",
    query="""
        SELECT a.run, CASE WHEN r.finished_at > :until THEN 'open' ELSE a.status END AS status,
            intakes_found AS found, accepted, duplicate, succeeded, partial,
            failed + quarantined AS failed, cancelled,
            queued + running + waiting + synthesizing + paused AS unfinished,
            intakes_balance AND jobs_balance AS balances,
            count(*) OVER () AS there_are
        FROM run_accounts AS a
        INNER JOIN runs AS r ON r.id = a.run_id
        WHERE r.created_at <= :until AND (r.finished_at IS NULL OR r.finished_at > :since)
        ORDER BY r.id
        LIMIT :most
    """,
    most=_MANY,
)
FAILURES = ReportSection(
    heading="What failed",
    query="""
        SELECT what, state, error_code AS code, count(*) AS times, count(*) OVER () AS there_are
        FROM failures
        WHERE run IN (
            SELECT name FROM runs
            WHERE created_at <= :until AND (finished_at IS NULL OR finished_at > :since)
        )
        GROUP BY 1, 2, 3
        ORDER BY times DESC, 1, 2, 3
        LIMIT :most
    """,
    most=_MANY,
)
# Chunks are omitted: their jobs give the reason. The order puts some of each code first.
FAILED_BY_NAME = ReportSection(
    heading="What failed, by name",
    query="""
        SELECT run, source, analysis_type AS type, state, error_code AS code,
            error_message AS reason, hint, count(*) OVER () AS there_are
        FROM failures
        WHERE what <> 'chunk' AND run IN (
            SELECT name FROM runs
            WHERE created_at <= :until AND (finished_at IS NULL OR finished_at > :since)
        )
        ORDER BY
            row_number() OVER (
                PARTITION BY what, state, error_code ORDER BY run, source, analysis_type
            ),
            state, error_code, run, source, analysis_type
        LIMIT :most
    """,
    most=_FEW,
)
# Files with a failed intake or job are omitted: they are in the sections of failures.
INBOX_FILES = ReportSection(
    heading="Files of an inbox that could not be taken in",
    query="""
        SELECT folder, name AS file, reason AS code, message AS reason, hint,
            count(*) OVER () AS there_are
        FROM inbox_files AS f
        WHERE status = 'failed' AND delivered_at > :since AND delivered_at <= :until
            AND NOT EXISTS (
                SELECT FROM inbox_intakes AS l
                INNER JOIN intakes AS i ON i.id = l.intake_id
                LEFT JOIN jobs AS j ON j.run_id = i.run_id AND j.document_id = i.document_id
                WHERE l.inbox_file_id = f.id
                    AND (i.outcome NOT IN ('accepted', 'duplicate') OR j.status <> 'succeeded')
            )
        ORDER BY delivered_at, id
        LIMIT :most
    """,
    most=_FEW,
)
DELIVERIES = ReportSection(
    heading="Permanently failed deliveries",
    query="""
        SELECT coalesce(r.name, d.content ->> 'schedule') AS run, d.kind, d.event, d.attempts,
            d.last_error AS reason, count(*) OVER () AS there_are
        FROM deliveries AS d
        LEFT JOIN runs AS r ON r.id = d.run_id
        WHERE d.status = 'failed' AND d.finished_at > :since AND d.finished_at <= :until
        ORDER BY d.finished_at, d.id
        LIMIT :most
    """,
    most=_FEW,
)
COSTS = ReportSection(
    heading="What it cost",
    query="""
        SELECT provider, model, count(*) AS calls, sum(input_tokens) AS input_tokens,
            sum(output_tokens) AS output_tokens, sum(cost_usd) AS usd,
            count(*) FILTER (WHERE cost_usd IS NULL) AS unpriced, count(*) OVER () AS there_are
        FROM model_calls
        WHERE started_at > :since AND started_at <= :until AND NOT cache_hit
        GROUP BY 1, 2
        ORDER BY 1, 2
        LIMIT :most
    """,
    most=_MANY,
)
REVIEW = ReportSection(
    heading="Needs review",
    query="""
        SELECT run, source, analysis_type AS type, status,
            round(confidence::numeric, 2) AS confidence, trunc(quality::numeric, 2) AS quality,
            count(*) OVER () AS there_are
        FROM document_results
        WHERE created_at > :since AND created_at <= :until
            AND (needs_review OR status = 'partial')
        ORDER BY confidence, source
        LIMIT :most
    """,
    most=_FEW,
)
SECTIONS = (DONE, RUNS, FAILURES, FAILED_BY_NAME, INBOX_FILES, DELIVERIES, COSTS, REVIEW)
