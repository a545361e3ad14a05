-- What the cache and the routing saved by day (UTC).
-- cache_saved_usd counts each hit as the mean cost of a call with the same model and prompt version.
-- routing_saved_usd is what the largest tier would have cost less what was paid; it is null without
-- routed calls, and where a price is unknown.
CREATE VIEW savings_by_day AS
WITH paid AS (
    SELECT
        provider,
        model,
        prompt_version,
        avg(cost_usd) AS mean_cost_usd
    FROM model_calls
    WHERE NOT cache_hit AND finish_reason IS NOT NULL
    GROUP BY 1, 2, 3
)

SELECT
    (c.started_at AT TIME ZONE 'UTC')::date AS day,
    count(*) FILTER (WHERE c.cache_hit) AS cache_hits,
    sum(p.mean_cost_usd) FILTER (WHERE c.cache_hit) AS cache_saved_usd,
    count(*) FILTER (WHERE c.reference_cost_usd IS NOT NULL AND NOT c.cache_hit) AS routed_questions,
    CASE
        WHEN bool_and(c.cost_usd IS NOT NULL) FILTER (
            WHERE c.tier IS NOT NULL AND c.finish_reason IS NOT NULL AND NOT c.cache_hit
        )
            THEN sum(coalesce(c.reference_cost_usd, 0) - coalesce(c.cost_usd, 0))
                FILTER (WHERE c.tier IS NOT NULL AND NOT c.cache_hit)
    END AS routing_saved_usd
FROM model_calls AS c
LEFT JOIN paid AS p
    ON p.provider = c.provider AND p.model = c.model AND p.prompt_version = c.prompt_version
GROUP BY 1;
