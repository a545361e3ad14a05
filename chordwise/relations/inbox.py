"""The files that were taken from the watched folders."""

from __future__ import annotations

from chordwise.relations.relation import Relation

RECENT_FILES = Relation(
    query="""SELECT
    f.name, f.profile, f.status, r.name AS run, coalesce(f.delivered_path, f.stored_path) AS path,
    f.reason, f.message, f.hint, f.created_at AS taken_at
FROM inbox_files AS f LEFT JOIN runs AS r ON r.id = f.run_id""",
    filters={"folder": "f.folder = %(folder)s"},
    order="f.id DESC",
)
FILE_COUNTS = Relation(
    # Files that were delivered more than a day ago do not count.
    query="""SELECT
    count(*) FILTER (WHERE status = 'done') AS done,
    count(*) FILTER (WHERE status = 'failed') AS failed,
    count(*) FILTER (WHERE status NOT IN ('done', 'failed')) AS in_store
FROM inbox_files""",
    filters={
        "folder": """folder = %(folder)s
    AND (delivered_at IS NULL OR delivered_at > clock_timestamp() - interval '1 day')"""
    },
)
