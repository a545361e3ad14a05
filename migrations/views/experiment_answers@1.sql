CREATE VIEW experiment_answers AS
SELECT
    e.name AS experiment,
    a.variant,
    a.paired,
    i.source,
    j.analysis_type,
    j.status,
    r.output,
    r.confidence,
    r.quality,
    CASE
        WHEN j.status = 'succeeded' THEN coalesce(r.failed_checks, '[]') = '[]'
        WHEN j.status IN ('partial', 'failed', 'quarantined') THEN FALSE
    END AS valid,
    (
        SELECT avg(f.grounded::integer)::double precision FROM facts AS f WHERE f.job_id = j.id
    ) AS grounded,
    c.refused_calls,
    c.cost_usd,
    c.latency_ms,
    r.model,
    r.prompt_version,
    run.name AS run,
    j.finished_at,
    a.document_id,
    j.id AS job_id,
    a.experiment_id
FROM experiment_documents AS a
INNER JOIN experiments AS e ON e.id = a.experiment_id
INNER JOIN intakes AS i ON i.id = a.intake_id
INNER JOIN jobs AS j ON j.intake_id = a.intake_id
INNER JOIN runs AS run ON run.id = j.run_id
LEFT JOIN results AS r ON r.job_id = j.id
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE refused) AS refused_calls,
        CASE WHEN bool_and(cost_usd IS NOT NULL AND NOT cache_hit) THEN sum(cost_usd) END
            AS cost_usd,
        CASE WHEN bool_and(latency_ms IS NOT NULL AND NOT cache_hit) THEN sum(latency_ms)::bigint END
            AS latency_ms
    FROM model_calls
    WHERE job_id = j.id
) AS c;
