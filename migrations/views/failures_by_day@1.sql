CREATE VIEW failures_by_day AS
WITH failed AS (
    SELECT
        created_at AS failed_at,
        'intake' AS what,
        reason AS error_code
    FROM intakes
    WHERE outcome IN ('unsupported', 'unreadable', 'encrypted', 'empty', 'too_large', 'refused')
    UNION ALL
    SELECT
        coalesce(finished_at, last_progress_at),
        'job',
        coalesce(error_code, status)
    FROM jobs
    WHERE status IN ('partial', 'failed', 'quarantined', 'cancelled')
    UNION ALL
    SELECT
        finished_at,
        'chunk',
        error_code
    FROM chunks
    WHERE status IN ('failed', 'quarantined')
    UNION ALL
    SELECT
        started_at,
        'call',
        error_code
    FROM model_calls
    WHERE error_code IS NOT NULL
)

SELECT
    (failed_at AT TIME ZONE 'UTC')::date AS day,
    what,
    error_code,
    count(*) AS failures
FROM failed
GROUP BY 1, 2, 3;
