"""A run of many documents, written by set-based SQL through the real schema."""

from __future__ import annotations

from sqlalchemy import text

from tests.fakes.pipeline import Pipeline

DOCUMENTS = 100_000
_FILLED = (
    """
    UPDATE runs SET created_at = created_at - interval '2 days'
    """,
    """
    INSERT INTO documents (id, sha256, source, media_type, text, character_count, normalization)
    SELECT uuidv7(), n::text, 'doc ' || n, 'text/plain', 'doc number ' || n, 16, '{}'
    FROM generate_series(1, :many) AS n
    """,
    """
    INSERT INTO intakes (id, run_id, source, outcome, document_id)
    SELECT uuidv7(), (SELECT id FROM runs), source, 'accepted', id FROM documents
    """,
    """
    INSERT INTO jobs (id, run_id, intake_id, document_id, analysis_type, options, options_hash,
                      model, status, attempts, postponements)
    SELECT uuidv7(), run_id, id, document_id, 'summary', '{}', 'h', 'm', 'succeeded', 1, 0
    FROM intakes
    """,
    """
    INSERT INTO results (id, job_id, document_id, analysis_type, output, confidence, quality,
                         coverage, needs_review, failed_chunks, provider, model, language_model,
                         prompt_version)
    SELECT uuidv7('-1 day'), id, document_id, 'summary', '{}', random(), 1, 1, random() < 0.01,
           '[]', 'p', 'm', true, 'x@1'
    FROM jobs
    """,
    """
    INSERT INTO facts (id, job_id, path, item, value, grounding)
    SELECT uuidv7(), job_id, '/a', 'a', 'value of ' || left(job_id::text, 13),
           CASE WHEN needs_review THEN 'none' ELSE 'exact' END
    FROM results
    """,
)
CALLS = (
    """
    INSERT INTO model_calls (id, job_id, stage, provider, model, language_model, prompt_version,
                             attempt, cache_hit, started_at, finished_at, latency_ms, input_tokens,
                             output_tokens, cost_usd)
    SELECT uuidv7(), id, 'analysis', 'p', 'm', true, 'x@1', n, false, d.started_at, d.started_at,
           500, 900, 200, 0.001
    FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM jobs) AS j,
        generate_series(1, 2) AS n,
        LATERAL (SELECT now() - (100 - j.place / 1000) * interval '1 day' AS started_at) AS d
    ORDER BY j.id
    """,
    """
    INSERT INTO chunks (id, job_id, position, start_char, end_char, status, attempts, postponements)
    SELECT uuidv7(), id, 0, 0, 16, CASE WHEN place <= 200 THEN 'failed' ELSE 'succeeded' END, 1, 0
    FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM jobs) AS j
    """,
    """
    UPDATE jobs SET status = 'failed', error_code = 'refused', chunk_count = 2
    WHERE id IN (SELECT id FROM jobs ORDER BY id LIMIT 40000)
    """,
)
"""A chunk and two calls for each job, over a hundred days; 40,000 jobs have failed."""
MORE_JOBS = """
INSERT INTO jobs
SELECT (jsonb_populate_record(j, jsonb_build_object('id', gen_random_uuid(), 'options_hash', n))).*
FROM jobs AS j, generate_series(1, :more) AS n
"""
"""Copies every job `more` times."""


def fill(pipeline: Pipeline, *further: str, many: int = DOCUMENTS) -> None:
    """Fill the only run with many documents, each with a job, a result and a fact."""
    pipeline.submit()
    with pipeline.context.database.write() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))
        session.execute(text("SET LOCAL statement_timeout = 0"))
        for statement in (*_FILLED, *further):
            session.execute(text(statement), {"many": many} if ":many" in statement else {})
    with pipeline.context.database.autocommit() as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("RESET statement_timeout"))
