-- Items that are not taken in yet are omitted. So is the only chunk of a job, as the job has the
-- same error. A successful job has no failed chunk. The statuses are listed so that indexes apply.
CREATE VIEW failures AS
SELECT
    run.name AS run,
    'intake' AS what,
    i.source,
    NULL AS analysis_type,
    i.outcome AS state,
    i.reason AS error_code,
    i.message AS error_message,
    i.hint,
    NULL::integer AS start_char,
    NULL::integer AS end_char
FROM intakes AS i
INNER JOIN runs AS run ON run.id = i.run_id
WHERE i.outcome IN ('unsupported', 'unreadable', 'encrypted', 'empty', 'too_large', 'refused')
UNION ALL
SELECT
    run.name,
    'job',
    i.source,
    j.analysis_type,
    j.status,
    j.error_code,
    j.error_message,
    j.hint,
    NULL,
    NULL
FROM jobs AS j
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id
WHERE j.status IN ('partial', 'failed', 'quarantined', 'cancelled', 'paused')
UNION ALL
SELECT
    run.name,
    'chunk',
    i.source,
    j.analysis_type,
    c.status,
    c.error_code,
    c.error_message,
    c.hint,
    c.start_char,
    c.end_char
FROM chunks AS c
INNER JOIN jobs AS j ON j.id = c.job_id
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id
WHERE
    c.status IN ('failed', 'quarantined')
    AND j.chunk_count > 1
    AND j.status IN (
        'queued', 'running', 'waiting', 'synthesizing', 'paused',
        'partial', 'failed', 'quarantined', 'cancelled'
    );
