"""The columns of answer tables, as PostgreSQL describes them."""

from __future__ import annotations

from chordwise.relations.relation import Relation

VIEW_COLUMNS = Relation(
    query="""SELECT
    c.relname AS view, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
    coalesce(col_description(c.oid, a.attnum), '') AS description
FROM pg_class AS c
INNER JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped""",
    filters={
        "views": "c.relnamespace = 'answers'::regnamespace AND c.relname = ANY(%(views)s::text[])"
    },
    order="array_position(%(views)s::text[], c.relname::text), a.attnum",
)
