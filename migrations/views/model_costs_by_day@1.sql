CREATE VIEW model_costs_by_day AS
SELECT
    (started_at AT TIME ZONE 'UTC')::date AS day,
    provider,
    model,
    count(*) AS calls,
    count(*) FILTER (WHERE cache_hit) AS cache_hits,
    sum(input_tokens) AS input_tokens,
    sum(output_tokens) AS output_tokens,
    sum(cost_usd) AS cost_usd,
    count(*) FILTER (WHERE cost_usd IS NULL) AS unpriced_calls
FROM model_calls
GROUP BY 1, 2, 3;
