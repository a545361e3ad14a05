-- Calls slower than 95 % of the calls of their model, with the document that they were for.
CREATE VIEW slow_calls AS
WITH limits AS (
    SELECT
        provider,
        model,
        percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_ms) AS p95_latency_ms
    FROM model_calls
    WHERE latency_ms IS NOT NULL
    GROUP BY provider, model
)
SELECT
    c.id AS model_call_id,
    c.started_at,
    c.provider,
    c.model,
    c.stage,
    c.latency_ms,
    l.p95_latency_ms,
    c.input_tokens,
    c.output_tokens,
    c.error_code,
    i.source,
    c.job_id,
    c.chunk_id
FROM model_calls AS c
INNER JOIN limits AS l USING (provider, model)
LEFT JOIN jobs AS j ON j.id = c.job_id
LEFT JOIN intakes AS i ON i.id = j.intake_id
WHERE c.latency_ms > l.p95_latency_ms;
