-- The calls are first counted by latency, which can run in parallel; the limit equals that of
-- percentile_cont(0.95).
CREATE VIEW slow_calls AS
WITH counted AS (
    SELECT
        provider,
        model,
        latency_ms,
        count(*) AS calls
    FROM model_calls
    WHERE latency_ms IS NOT NULL
    GROUP BY provider, model, latency_ms
),

placed AS (
    SELECT
        provider,
        model,
        latency_ms,
        sum(calls) OVER (PARTITION BY provider, model ORDER BY latency_ms) AS up_to,
        0.95 * (sum(calls) OVER (PARTITION BY provider, model) - 1) AS place
    FROM counted
),

limits AS (
    SELECT
        provider,
        model,
        (
            min(latency_ms) FILTER (WHERE up_to > floor(place)) * (1 - place % 1)
            + min(latency_ms) FILTER (WHERE up_to > ceil(place)) * (place % 1)
        )::double precision AS p95_latency_ms
    FROM placed
    GROUP BY provider, model, place
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
    coalesce(c.source, i.source) AS source,
    c.job_id,
    c.chunk_id
FROM model_calls AS c
INNER JOIN limits AS l USING (provider, model)
LEFT JOIN jobs AS j ON j.id = c.job_id
LEFT JOIN intakes AS i ON i.id = j.intake_id
WHERE c.latency_ms > l.p95_latency_ms;
