CREATE VIEW model_quality_by_day AS
WITH counted AS (
    SELECT
        (started_at AT TIME ZONE 'UTC')::date AS day,
        provider,
        model,
        count(*) AS calls,
        count(*) FILTER (WHERE refused) AS refusals,
        count(*) FILTER (WHERE error_code IS NOT NULL) AS errors,
        count(*) FILTER (WHERE valid IS FALSE) AS invalid_answers,
        avg(quality) AS quality,
        avg(response_length) AS response_length,
        -- One sort for both percentiles.
        percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY latency_ms) AS latency_ms
    FROM model_calls
    GROUP BY 1, 2, 3
)

SELECT
    day,
    provider,
    model,
    calls,
    refusals,
    round(refusals::numeric / calls, 4) AS refusal_share,
    errors,
    invalid_answers,
    round(quality::numeric, 3) AS mean_quality,
    round(response_length) AS mean_response_length,
    latency_ms[1] AS median_latency_ms,
    latency_ms[2] AS p95_latency_ms
FROM counted;
