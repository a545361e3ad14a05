-- Refusals, failures, lengths, latency and quality by model and day (UTC).
-- The calls are counted by latency first, which several processes can do; the two latencies are those
-- of percentile_cont(0.5) and percentile_cont(0.95).
CREATE VIEW model_quality_by_day AS
WITH counted AS (
    SELECT
        (started_at AT TIME ZONE 'UTC')::date AS day,
        provider,
        model,
        latency_ms,
        count(*) AS calls,
        count(*) FILTER (WHERE refused) AS refusals,
        count(*) FILTER (WHERE error_code IS NOT NULL) AS errors,
        count(*) FILTER (WHERE valid IS FALSE) AS invalid_answers,
        sum(quality) AS quality,
        count(quality) AS of_quality,
        sum(response_length) AS response_length,
        count(response_length) AS of_length
    FROM model_calls
    GROUP BY 1, 2, 3, 4
),

placed AS (
    SELECT
        *,
        sum(calls) FILTER (WHERE latency_ms IS NOT NULL) OVER along AS up_to,
        sum(calls) FILTER (WHERE latency_ms IS NOT NULL) OVER (PARTITION BY day, provider, model) - 1
            AS last
    FROM counted
    WINDOW along AS (PARTITION BY day, provider, model ORDER BY latency_ms)
)

SELECT
    day,
    provider,
    model,
    sum(calls)::bigint AS calls,
    sum(refusals)::bigint AS refusals,
    round(sum(refusals) / sum(calls), 4) AS refusal_share,
    sum(errors)::bigint AS errors,
    sum(invalid_answers)::bigint AS invalid_answers,
    round((sum(quality) / nullif(sum(of_quality), 0))::numeric, 3) AS mean_quality,
    round(sum(response_length) / nullif(sum(of_length), 0)) AS mean_response_length,
    (
        min(latency_ms) FILTER (WHERE up_to > floor(0.5 * last)) * (1 - 0.5 * last % 1)
        + min(latency_ms) FILTER (WHERE up_to > ceil(0.5 * last)) * (0.5 * last % 1)
    )::double precision AS median_latency_ms,
    (
        min(latency_ms) FILTER (WHERE up_to > floor(0.95 * last)) * (1 - 0.95 * last % 1)
        + min(latency_ms) FILTER (WHERE up_to > ceil(0.95 * last)) * (0.95 * last % 1)
    )::double precision AS p95_latency_ms
FROM placed
GROUP BY day, provider, model, last;
