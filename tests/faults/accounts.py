"""I1, I2, I3 and I8 of the oracle: jobs, results, chunks and failures in the tables."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.allowance import Allowance
from tests.faults.cluster import Cluster

_UNBALANCED = """
SELECT run, status, intakes_balance, jobs_balance FROM run_accounts
WHERE intakes_balance IS NOT TRUE OR jobs_balance IS NOT TRUE"""

_UNFINISHED = "SELECT name, status FROM runs WHERE status <> 'finished'"

_WRONG_RESULTS = """
SELECT j.id, j.status, count(r.id) FROM jobs AS j LEFT JOIN results AS r ON r.job_id = j.id
GROUP BY j.id
HAVING count(r.id) <> CASE WHEN j.status IN ('succeeded', 'partial') THEN 1 ELSE 0 END"""

_REPEATED = """
SELECT j.document_id, count(*) FROM jobs AS j JOIN results AS r ON r.job_id = j.id
WHERE j.reused_from IS NULL GROUP BY j.document_id, j.options_hash HAVING count(*) > 1"""

_WRONG_COUNTDOWN = """
SELECT j.id, j.open_chunks, open.chunks FROM jobs AS j CROSS JOIN LATERAL (
    SELECT count(*) AS chunks FROM chunks AS c
    WHERE c.job_id = j.id AND c.status IN ('pending', 'running', 'waiting')
) AS open
WHERE j.open_chunks <> open.chunks"""

# A gap before a chunk, an overlap with the one before it, or an end that is not the text's.
_GAPS = """
WITH spans AS (
    SELECT c.job_id, c.position, c.start_char, c.end_char, length(d.text) AS characters,
        lag(c.end_char, 1, 0) OVER document AS end_before,
        lead(c.start_char) OVER document IS NULL AS is_last
    FROM chunks AS c JOIN jobs AS j ON j.id = c.job_id JOIN documents AS d ON d.id = j.document_id
    WINDOW document AS (PARTITION BY c.job_id ORDER BY c.position)
)
SELECT job_id, position, start_char, end_char FROM spans
WHERE start_char <> end_before OR end_char <= start_char OR (is_last AND end_char <> characters)"""

_UNNAMED = """
SELECT r.job_id, r.failed_chunks, named.chunks FROM results AS r
JOIN jobs AS j ON j.id = r.job_id AND j.reused_from IS NULL
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'position', c.position, 'start_char', c.start_char, 'end_char', c.end_char,
        'error_code', c.error_code) ORDER BY c.position), '[]') AS chunks
    FROM chunks AS c WHERE c.job_id = r.job_id AND c.status <> 'succeeded'
) AS named
WHERE r.failed_chunks <> named.chunks"""

_WRONG_COVERAGE = """
SELECT r.job_id, r.coverage, sums.share FROM results AS r
JOIN jobs AS j ON j.id = r.job_id AND j.reused_from IS NULL
JOIN documents AS d ON d.id = r.document_id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(c.end_char - c.start_char), 0)::float / length(d.text) AS share
    FROM chunks AS c WHERE c.job_id = r.job_id AND c.status = 'succeeded'
) AS sums
WHERE abs(r.coverage - sums.share) > 0.0001"""

_UNGROUNDED = """
SELECT f.job_id, f.path FROM facts AS f JOIN jobs AS j ON j.id = f.job_id
JOIN documents AS d ON d.id = j.document_id
WHERE f.grounded AND substr(d.text, f.start_char + 1, f.end_char - f.start_char)
    IS DISTINCT FROM f.quote"""

_NO_FACTS = """
SELECT r.job_id FROM results AS r WHERE NOT EXISTS (
    SELECT FROM facts AS f WHERE f.job_id = r.job_id AND f.grounded)"""

_UNEXPLAINED_CHUNKS = """
SELECT job_id, position, status, error_code, error_message, hint, attempts FROM chunks
WHERE status IN ('failed', 'quarantined') AND (coalesce(error_code, '') = ''
    OR coalesce(error_message, '') = '' OR coalesce(hint, '') = '' OR attempts < 1)"""

_UNEXPLAINED_JOBS = """
SELECT id, status, error_code, error_message, hint FROM jobs
WHERE status IN ('partial', 'failed', 'quarantined', 'paused') AND (coalesce(error_code, '') = ''
    OR coalesce(error_message, '') = '' OR coalesce(hint, '') = '')"""

_UNEXPLAINED_CALLS = """
SELECT id, error_code, error_message, attempt FROM model_calls
WHERE error_code IS NOT NULL AND (coalesce(error_message, '') = '' OR attempt < 1)"""


def end_states(cluster: Cluster, allowance: Allowance) -> Iterator[str]:
    """I1: every job is in an end state and counts its chunks, and the accounts of runs balance."""
    statuses = cluster.rows("SELECT status, count(*) FROM jobs GROUP BY status")
    if not statuses:
        yield "there are no jobs"
    for status, count in statuses:
        if status not in allowance.ends:
            yield f"{count} jobs are {status}"
    yield from _each(cluster, _WRONG_COUNTDOWN, "a job counts a wrong number of open chunks")
    yield from _each(cluster, _UNFINISHED, "a run is not finished")
    yield from _each(cluster, _UNBALANCED, "the account of a run does not balance")


def one_result_each(cluster: Cluster, allowance: Allowance) -> Iterator[str]:
    """I2: each succeeded job has one result, other jobs have none, and no question has two."""
    yield from _each(cluster, _WRONG_RESULTS, "a job has the wrong number of results")
    yield from _each(cluster, "SELECT job_id FROM result_history", "a result was replaced")
    if not allowance.repeated:
        yield from _each(cluster, _REPEATED, "a question has more than one result")


def whole_documents(cluster: Cluster, allowance: Allowance) -> Iterator[str]:
    """I3: chunks cover the text, failed chunks are named, and grounded quotes are verbatim."""
    yield from _each(cluster, _GAPS, "chunks leave a gap or overlap")
    yield from _each(cluster, _UNNAMED, "failed chunks are not named correctly")
    yield from _each(cluster, _WRONG_COVERAGE, "a coverage is wrong")
    yield from _each(cluster, _UNGROUNDED, "a grounded quote is not in the text")
    ungrounded = list(_each(cluster, _NO_FACTS, "a result has no grounded fact"))
    yield from ungrounded[allowance.ungrounded :]


def explained_failures(cluster: Cluster, _: Allowance) -> Iterator[str]:
    """I8: every failure has a code, a message, a hint, and the number of attempts."""
    yield from _each(cluster, _UNEXPLAINED_CHUNKS, "a chunk's failure is not explained")
    yield from _each(cluster, _UNEXPLAINED_JOBS, "a job's failure is not explained")
    yield from _each(cluster, _UNEXPLAINED_CALLS, "a call's failure is not explained")


def _each(cluster: Cluster, query: str, what: str) -> Iterator[str]:
    for row in cluster.rows(query):
        yield f"{what}: {', '.join(str(value) for value in row)}"
