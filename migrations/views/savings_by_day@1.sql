CREATE VIEW savings_by_day AS
WITH counted AS (
    SELECT
        (started_at AT TIME ZONE 'UTC')::date AS day,
        provider,
        model,
        prompt_version,
        count(*) FILTER (WHERE cache_hit) AS cache_hits,
        sum(cost_usd) FILTER (WHERE NOT cache_hit AND finish_reason IS NOT NULL) AS paid_usd,
        count(cost_usd) FILTER (WHERE NOT cache_hit AND finish_reason IS NOT NULL) AS paid_calls,
        count(*) FILTER (WHERE reference_cost_usd IS NOT NULL AND NOT cache_hit) AS routed_questions,
        sum(coalesce(reference_cost_usd, 0) - coalesce(cost_usd, 0))
            FILTER (WHERE tier IS NOT NULL AND NOT cache_hit) AS routing_saved_usd,
        bool_and(cost_usd IS NOT NULL)
            FILTER (WHERE tier IS NOT NULL AND finish_reason IS NOT NULL AND NOT cache_hit) AS is_priced
    FROM model_calls
    GROUP BY 1, 2, 3, 4
),

paid AS (
    SELECT
        provider,
        model,
        prompt_version,
        sum(paid_usd) / nullif(sum(paid_calls), 0) AS mean_cost_usd
    FROM counted
    GROUP BY 1, 2, 3
)

SELECT
    c.day,
    sum(c.cache_hits)::bigint AS cache_hits,
    sum(c.cache_hits * p.mean_cost_usd) FILTER (WHERE c.cache_hits > 0) AS cache_saved_usd,
    sum(c.routed_questions)::bigint AS routed_questions,
    CASE WHEN bool_and(c.is_priced) THEN sum(c.routing_saved_usd) END AS routing_saved_usd
FROM counted AS c
INNER JOIN paid AS p
    ON p.provider = c.provider AND p.model = c.model AND p.prompt_version = c.prompt_version
GROUP BY 1;
