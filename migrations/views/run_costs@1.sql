-- Calls that transcribe pages belong to the run of the intake and to no job.
CREATE VIEW run_costs AS
WITH calls AS (
    SELECT
        j.run_id,
        count(*) AS calls,
        count(*) FILTER (WHERE c.cache_hit) AS cache_hits,
        sum(c.cost_usd) AS cost_usd,
        count(c.cost_usd) AS priced_calls,
        count(*) FILTER (WHERE c.cost_basis = 'reported') AS reported_calls
    FROM model_calls AS c
    INNER JOIN jobs AS j ON j.id = c.job_id
    GROUP BY j.run_id
    UNION ALL
    SELECT
        c.run_id,
        count(*),
        count(*) FILTER (WHERE c.cache_hit),
        sum(c.cost_usd),
        count(c.cost_usd),
        count(*) FILTER (WHERE c.cost_basis = 'reported')
    FROM model_calls AS c
    WHERE c.run_id IS NOT NULL
    GROUP BY c.run_id
)

SELECT
    c.run_id,
    r.name AS run,
    sum(c.calls)::bigint AS calls,
    sum(c.cache_hits)::bigint AS cache_hits,
    sum(c.cost_usd) AS cost_usd,
    sum(c.calls - c.priced_calls)::bigint AS unpriced_calls,
    sum(c.reported_calls)::bigint AS reported_calls
FROM calls AS c
INNER JOIN runs AS r ON r.id = c.run_id
GROUP BY c.run_id, r.name;
