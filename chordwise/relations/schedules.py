"""Schedules with their next due times, and past due times with their outcomes."""

from __future__ import annotations

from chordwise.relations.relation import Relation

SCHEDULES = Relation(
    query="""SELECT name, run, cron, time_zone, next_due_at, origin, folder, catch_up,
    expires_after_hours
FROM schedules""",
    filters={"enabled": "enabled = %(enabled)s"},
    order="name",
)
OCCURRENCES = Relation(
    query="""SELECT
    schedule, run, due_at, trigger, status,
    ARRAY(SELECT r.name FROM runs AS r WHERE r.schedule_run_id = o.id ORDER BY r.id) AS runs,
    outcome, error_code, error_message, hint, started_at, finished_at
FROM schedule_runs AS o""",
    filters={"schedule": "schedule = %(schedule)s"},
    order="due_at DESC",
)
