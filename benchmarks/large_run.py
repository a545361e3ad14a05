"""One very large run, written by set-based SQL statements through the real schema.

It is written in steps, so that each state can be measured: submitted, running, finished.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import sql

JOBS = 300_000
"""The jobs at scale 1: two for each document, with about 600,000 calls and 1,000,000 facts."""

_BUSY_SHARE = 0.1
_RUN = """
INSERT INTO runs (id, name, status, options, type_count, found_count, created_at,
                  intake_finished_at)
VALUES (uuidv7(), 'large', 'open',
        '{"types": ["extraction", "summary"], "model": "bench", "profile": null}', 2,
        %(documents)s, now() - interval '10 hours', now() - interval '9 hours')
"""
_DOCUMENTS = """
INSERT INTO documents (id, sha256, source, media_type, title, text, character_count,
                       normalization, created_at)
SELECT uuidv7(), encode(sha256(n::text::bytea), 'hex'), 'archive/d' || n || '.txt', 'text/plain',
       'Document ' || n, t.text, length(t.text),
       '{"nul_removed": 0, "surrogates_replaced": 0, "line_ends_changed": 0, "encoding": "utf-8"}',
       now() - interval '10 hours'
FROM generate_series(1, %(documents)s) AS n,
LATERAL (
    SELECT 'Document ' || n || '. ' || string_agg(
        'The contract ' || md5((n * k)::text) || ' of ' || n %% 97 || ' suppliers names a date, '
        || 'a price of ' || n * k %% 10007 || ' euros and the person who signs. ', ''
    ) AS text
    FROM generate_series(1, 12) AS k
) AS t
"""
_INTAKES = """
INSERT INTO intakes (id, run_id, source, sha256, byte_count, outcome, document_id, created_at)
SELECT uuidv7(), r.id, d.source, d.sha256, d.character_count, 'accepted', d.id,
       now() - interval '9 hours'
FROM documents AS d, runs AS r WHERE r.name = 'large' ORDER BY d.id
"""
_FOUND_FAULTY = """
INSERT INTO intakes (id, run_id, source, byte_count, outcome, reason, message, hint)
SELECT uuidv7(), r.id, 'archive/x' || n || '.pdf', 9000, 'unreadable', 'truncated',
       'The file ends too early.', 'Copy it again.'
FROM runs AS r, generate_series(1, %(faulty)s) AS n WHERE r.name = 'large'
"""
_JOBS = """
INSERT INTO jobs (id, run_id, intake_id, document_id, analysis_type, options, options_hash, model,
                  status, attempts, postponements, created_at, last_progress_at)
SELECT uuidv7(), i.run_id, i.id, i.document_id, kind.name,
       '{"labels": [], "language": "English", "instructions": "Name dates, prices, persons.",
         "confidence_threshold": 0.5, "votes": 1, "critique": false}',
       encode(sha256(kind.name::bytea), 'hex'), 'bench', 'queued', 0, 0,
       now() - interval '9 hours', now() - interval '9 hours'
FROM intakes AS i, (VALUES ('extraction'), ('summary')) AS kind (name)
WHERE i.outcome = 'accepted'
ORDER BY i.id, kind.name
"""
_MESSAGES = """
INSERT INTO outbox (id, task, reason, urgency, sends)
SELECT id, 'chordwise.fan_out', 'submitted', 1, 0 FROM jobs ORDER BY id
"""
_CHUNK_MESSAGES = """
INSERT INTO outbox (id, task, reason, urgency, sends)
SELECT id, 'chordwise.analyze_slice', 'submitted', 1, 0
FROM chunks WHERE status = 'pending' ORDER BY id
"""
# One job of each document has one chunk, the other one has two chunks and a synthesis.
_CHUNKS = """
WITH split AS (
    UPDATE jobs SET status = 'running', started_at = last_progress_at, attempts = 0,
        chunk_count = s.chunks, open_chunks = s.chunks
    FROM (
        SELECT id, 1 + row_number() OVER (ORDER BY id) %% 2 AS chunks FROM jobs
    ) AS s
    WHERE jobs.id = s.id
    RETURNING jobs.id, jobs.document_id, s.chunks
)
INSERT INTO chunks (id, job_id, position, start_char, end_char, status, attempts, postponements)
SELECT uuidv7(), j.id, p, d.character_count * p / j.chunks, d.character_count * (p + 1) / j.chunks,
       'pending', 0, 0
FROM split AS j INNER JOIN documents AS d ON d.id = j.document_id,
generate_series(0, j.chunks - 1) AS p
ORDER BY j.id, p
"""
_ENDING = """
CREATE TEMPORARY TABLE ending AS
SELECT j.id, j.document_id, j.analysis_type, j.chunk_count,
       row_number() OVER (ORDER BY j.id) AS n,
       CASE row_number() OVER (ORDER BY j.id) %% 50 WHEN 7 THEN 'failed' WHEN 23 THEN 'partial'
           ELSE 'succeeded' END AS status,
       now() - interval '8 hours' * (1 - row_number() OVER (ORDER BY j.id) / (1.0 + %(jobs)s))
           AS ended_at
FROM jobs AS j WHERE j.status IN ('queued', 'running') ORDER BY j.id LIMIT %(jobs)s
"""
_CALLS = """
INSERT INTO model_calls (
    id, job_id, chunk_id, stage, provider, model, language_model, prompt_version, tier, escalated,
    service_tier, attempt, cache_hit, started_at, finished_at, latency_ms, input_tokens,
    output_tokens, cost_usd, cost_basis, reference_cost_usd, response_length, response_id,
    finish_reason, refused, valid, quality, error_code, error_message
)
SELECT
    uuidv7(), c.job_id, c.chunk_id, c.stage, 'openai', m.name, true,
    c.analysis_type || CASE c.stage WHEN 'analysis' THEN '.analyze@1' ELSE '.synthesize@1' END,
    CASE m.name WHEN 'gpt-4o' THEN 'large' ELSE 'small' END, m.name = 'gpt-4o', 'default', 1, false,
    c.ended_at - interval '2 seconds', c.ended_at, m.latency, 900 + c.n %% 300, 200 + c.n %% 200,
    CASE WHEN c.n %% 100 > 0 THEN 0.0003 + c.n %% 7 * 0.0001 END,
    CASE WHEN c.n %% 100 > 0 THEN 'price_list' END, 0.004, 800 + c.n %% 500,
    'chatcmpl-' || md5(c.n::text), 'stop', false, c.status <> 'failed',
    CASE c.status WHEN 'failed' THEN NULL ELSE 0.9 END,
    CASE c.status WHEN 'failed' THEN 'invalid_answer' END,
    CASE c.status WHEN 'failed' THEN 'The answer does not fit the schema.' END
FROM (
    SELECT e.id AS job_id, c.id AS chunk_id, 'analysis' AS stage, e.*
    FROM ending AS e INNER JOIN chunks AS c ON c.job_id = e.id
    UNION ALL
    SELECT e.id, NULL, 'synthesis', e.* FROM ending AS e WHERE e.chunk_count > 1
) AS c,
LATERAL (
    SELECT CASE WHEN c.n %% 10 = 3 THEN 'gpt-4o' ELSE 'gpt-4o-mini' END AS name,
        500 + (c.n * 7919) %% 4001 AS latency
) AS m
ORDER BY c.ended_at
"""
_CHUNKS_END = """
UPDATE chunks SET status = CASE e.status WHEN 'failed' THEN 'failed' ELSE 'succeeded' END,
    attempts = 1, lease_token = chunks.id, started_at = e.ended_at - interval '3 seconds',
    finished_at = e.ended_at, provider = 'openai', model = 'gpt-4o-mini',
    prompt_version = e.analysis_type || '.analyze@1', confidence = 0.8, quality = 0.9,
    error_code = CASE e.status WHEN 'failed' THEN 'invalid_answer' END,
    error_message = CASE e.status WHEN 'failed' THEN 'The answer does not fit the schema.' END,
    answer = CASE e.status WHEN 'failed' THEN NULL ELSE jsonb_build_object(
        'confidence', 0.8, 'items', jsonb_build_array(
            jsonb_build_object('name', 'price', 'value', e.n::text, 'quote', 'a price of ' || e.n),
            jsonb_build_object('name', 'supplier', 'value', md5(e.n::text), 'quote', 'The contract')
        )) END
FROM ending AS e WHERE e.id = chunks.job_id
"""
_JOBS_END = """
UPDATE jobs SET status = e.status, open_chunks = 0, started_at = e.ended_at - interval '4 seconds',
    last_progress_at = e.ended_at, finished_at = e.ended_at, lease_token = jobs.id,
    error_code = CASE WHEN e.status <> 'succeeded' THEN 'chunks_failed' END,
    error_message = CASE WHEN e.status <> 'succeeded' THEN 'Chunks have failed: 1.' END,
    hint = CASE WHEN e.status <> 'succeeded' THEN 'Run `chordwise continue`.' END
FROM ending AS e WHERE e.id = jobs.id
"""
_RESULTS = """
INSERT INTO results (id, job_id, document_id, analysis_type, output, confidence, quality, coverage,
                     needs_review, failed_chunks, provider, model, language_model, prompt_version,
                     created_at)
SELECT uuidv7(), e.id, e.document_id, e.analysis_type, jsonb_build_object(
           'confidence', 0.8, 'items', jsonb_build_array(
               jsonb_build_object('name', 'price', 'value', e.n::text, 'quote', 'a price of'),
               jsonb_build_object('name', 'supplier', 'value', md5(e.n::text), 'quote', 'The')
           )),
       0.5 + e.n %% 50 / 100.0, 0.9, CASE e.status WHEN 'partial' THEN 0.5 ELSE 1 END,
       e.n %% 40 = 0, '[]', 'openai', CASE WHEN e.n %% 10 = 3 THEN 'gpt-4o' ELSE 'gpt-4o-mini' END,
       true, e.analysis_type || '.analyze@1', e.ended_at
FROM ending AS e WHERE e.status <> 'failed' ORDER BY e.n
ON CONFLICT DO NOTHING
"""
_FACTS = """
INSERT INTO facts (id, job_id, path, item, row_index, value, number, confidence, quote,
                   start_char, end_char, grounding)
SELECT uuidv7(), e.id,
       CASE e.analysis_type WHEN 'extraction' THEN '/fields/' ELSE '/items/' END || k,
       'field ' || k, k, md5((e.n * k)::text),
       e.n * k %% 10007, 0.5 + k / 10.0, 'a price of ' || e.n * k %% 10007 || ' euros',
       120 * k, 120 * k + 20, 'exact'
FROM ending AS e, generate_series(0, 2 + (e.n / 2 %% 2)::integer) AS k
WHERE e.status <> 'failed' AND NOT EXISTS (SELECT FROM facts AS f WHERE f.job_id = e.id)
ORDER BY e.n, k
"""
# Only the last results are stale, so a query for them has to read all results.
_STALE = """
UPDATE results SET prompt_version = analysis_type || '.analyze@1'
WHERE id IN (SELECT id FROM results ORDER BY id DESC LIMIT 30)
"""
_PROMPTS = """
INSERT INTO prompt_versions (version, sha256, system, "user")
SELECT kind || '.' || stage || '@' || number, md5(kind || stage || number), 'You analyze.', 'Text.'
FROM unnest(ARRAY['extraction', 'summary']) AS kind,
    unnest(ARRAY['analyze', 'synthesize']) AS stage, generate_series(1, 2) AS number
"""
_MONEY = """
INSERT INTO budgets (scope, run_id, cap_usd, spent_usd)
SELECT 'run:' || id, id, 1000, 400 FROM runs WHERE name = 'large'
UNION ALL SELECT 'day:' || to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD'), NULL, NULL, 400
"""
_EVALUATIONS = """
WITH evaluated AS (
    INSERT INTO evaluations (id, run_id, run, analysis_type, is_whole, judged, unjudged, missing)
    SELECT uuidv7(), id, name, 'extraction', true, 100, 5, 0
    FROM runs, generate_series(1, 50) WHERE name = 'large' RETURNING id
)
INSERT INTO evaluation_measures (evaluation_id, metric, label, found, value, low, high, count)
SELECT id, 'accuracy', 'label ' || n, '', 0.9, 0.8, 0.95, 100 FROM evaluated,
    generate_series(1, 40) AS n
"""
_JUDGMENTS = """
INSERT INTO judgments (id, job_id, document_id, result_id, options_hash, analysis_type, provider,
                       model, prompt_version, judged_by, part, path, confidence, is_right)
SELECT uuidv7(), r.job_id, r.document_id, r.id, encode(sha256(r.analysis_type::bytea), 'hex'),
       r.analysis_type, r.provider, r.model, r.prompt_version, 'gold', 'result', '', r.confidence,
       r.confidence > 0.6
FROM results AS r ORDER BY r.id LIMIT %(judged)s
"""
_CALIBRATIONS = """
INSERT INTO calibrations (id, analysis_type, provider, model, part, method, points, judged,
                          judged_right, error_before, error_after, max_error_rate, accept_from,
                          accepted_share)
SELECT uuidv7(), kind, 'openai', model, part, 'isotonic',
       '[[0.5, 0.4], [0.7, 0.6], [0.9, 0.85], [1.0, 0.99]]', 500, 400, 0.1, 0.02, 0.05, 0.8, 0.4
FROM unnest(ARRAY['extraction', 'summary']) AS kind, unnest(ARRAY['result', 'field']) AS part,
    unnest(ARRAY['gpt-4o', 'gpt-4o-mini']) AS model, generate_series(1, 3)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeRun:
    """Writes a run of this many jobs over a connection in autocommit mode.

    `tell` is called with a message before each table is written.
    """

    connection: psycopg.Connection
    jobs: int
    tell: Callable[[str], None]

    def submit(self) -> None:
        """Write documents, intakes, queued jobs, and a message for each job."""
        documents = max(1, self.jobs // 2)
        faulty = max(1, documents // 1000)
        self._write("runs", _RUN, documents=documents + faulty)
        self._write("documents", _DOCUMENTS, documents=documents)
        self._write("intakes", _INTAKES)
        self._write("intakes", _FOUND_FAULTY, faulty=faulty)
        self._write("jobs", _JOBS)
        self._write("outbox", _MESSAGES)
        self._tidy("documents", "intakes", "jobs", "outbox")

    def begin(self) -> None:
        """Split all documents into chunks, and end nine of ten jobs."""
        self._write("chunks", _CHUNKS)
        self._tidy("jobs", "chunks")
        self._end(int(self.jobs * (1 - _BUSY_SHARE)))
        self.connection.execute("TRUNCATE outbox")
        self._write("outbox", _CHUNK_MESSAGES)
        self._tidy("outbox")

    def finish(self) -> None:
        """End the remaining jobs, and write evaluations, judgments and calibrations."""
        self._end(self.jobs)
        self.connection.execute("TRUNCATE outbox")
        self._write("runs", "UPDATE runs SET status = 'finished', finished_at = now()")
        self._write("results", _STALE)
        self._write("prompt_versions", _PROMPTS)
        self._write("budgets", _MONEY)
        self._write("evaluations", _EVALUATIONS)
        self._write("judgments", _JUDGMENTS, judged=max(1, self.jobs // 15))
        self._write("calibrations", _CALIBRATIONS)
        self._tidy("judgments", "evaluation_measures")

    def count(self, query: LiteralString | sql.Composed) -> int:
        """Return the one number that a query selects."""
        row = self.connection.execute(query).fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    def _end(self, jobs: int) -> None:
        self._write("ending", _ENDING, jobs=jobs)
        self.connection.execute("CREATE UNIQUE INDEX ON ending (id)")
        self.connection.execute("ANALYZE ending")
        # The fill of pages whose rows were updated in place.
        self.connection.execute("ALTER TABLE model_calls SET (fillfactor = 85)")
        self._write("model_calls", _CALLS)
        self.connection.execute("ALTER TABLE model_calls SET (fillfactor = 50)")
        self._write("chunks", _CHUNKS_END)
        self._write("jobs", _JOBS_END)
        # Unlike many short statements, one that changes all rows leaves as many dead rows.
        self.connection.execute("VACUUM (FULL) jobs, chunks")
        self._write("results", _RESULTS)
        self._write("facts", _FACTS)
        self.connection.execute("DROP TABLE ending")
        self._tidy("jobs", "chunks", "model_calls", "results", "facts")

    def _write(self, table: str, statement: LiteralString, **numbers: int) -> None:
        """Execute a statement that writes rows; a literal `%` in it is doubled."""
        self.tell(f"writing {table} …")
        self.connection.execute(statement, numbers)

    def _tidy(self, *tables: LiteralString) -> None:
        """Vacuum and analyze tables, as autovacuum does periodically."""
        self.connection.execute("VACUUM (ANALYZE) " + ", ".join(tables))
