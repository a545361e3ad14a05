-- Refusals, failures, lengths, latency and quality by model and day (UTC).
CREATE VIEW model_quality_by_day AS
SELECT
    (started_at AT TIME ZONE 'UTC')::date AS day,
    provider,
    model,
    count(*) AS calls,
    count(*) FILTER (WHERE refused) AS refusals,
    round(avg((refused IS TRUE)::int), 4) AS refusal_share,
    count(*) FILTER (WHERE error_code IS NOT NULL) AS errors,
    count(*) FILTER (WHERE valid IS FALSE) AS invalid_answers,
    round(avg(quality)::numeric, 3) AS mean_quality,
    round(avg(response_length)) AS mean_response_length,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY latency_ms) AS median_latency_ms,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_ms) AS p95_latency_ms
FROM model_calls
GROUP BY 1, 2, 3;
