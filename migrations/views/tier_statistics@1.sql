CREATE VIEW tier_statistics AS
WITH calls AS (
    SELECT
        j.run_id,
        c.tier,
        count(*) FILTER (WHERE NOT c.cache_hit) AS calls,
        count(*) FILTER (WHERE c.cache_hit) AS cache_hits,
        count(*) FILTER (WHERE c.escalated AND NOT c.cache_hit) AS escalated_calls,
        count(*) FILTER (WHERE c.error_code IS NOT NULL) AS failed_calls,
        count(*) FILTER (WHERE c.valid AND NOT c.cache_hit) AS valid_answers,
        avg(c.quality) FILTER (WHERE c.valid AND NOT c.cache_hit) AS mean_quality,
        sum(c.input_tokens) FILTER (WHERE NOT c.cache_hit) AS input_tokens,
        sum(c.output_tokens) FILTER (WHERE NOT c.cache_hit) AS output_tokens,
        sum(c.cost_usd) FILTER (WHERE NOT c.cache_hit) AS cost_usd,
        sum(c.reference_cost_usd) FILTER (WHERE NOT c.cache_hit) AS reference_cost_usd,
        bool_and(c.cost_usd IS NOT NULL)
            FILTER (WHERE c.finish_reason IS NOT NULL AND NOT c.cache_hit) AS is_priced,
        count(*) FILTER (WHERE c.cost_usd IS NULL) AS unpriced_calls
    FROM model_calls AS c
    INNER JOIN jobs AS j ON j.id = c.job_id
    WHERE c.tier IS NOT NULL
    GROUP BY j.run_id, c.tier
),

compared AS (
    SELECT
        *,
        bool_and(coalesce(is_priced, TRUE)) OVER (PARTITION BY run_id)
        AND sum(reference_cost_usd) OVER (PARTITION BY run_id) IS NOT NULL AS is_compared
    FROM calls
)

SELECT
    r.name AS run,
    c.tier,
    c.calls,
    c.cache_hits,
    c.escalated_calls,
    c.failed_calls,
    c.valid_answers,
    c.mean_quality,
    c.input_tokens,
    c.output_tokens,
    c.cost_usd,
    c.reference_cost_usd,
    CASE
        WHEN c.is_compared THEN coalesce(c.reference_cost_usd, 0) - coalesce(c.cost_usd, 0)
    END AS saved_usd,
    c.unpriced_calls
FROM compared AS c
INNER JOIN runs AS r ON r.id = c.run_id;
