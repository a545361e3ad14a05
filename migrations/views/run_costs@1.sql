-- What each run did cost. cost_usd sums what is known, and is null where nothing is;
-- unpriced_calls says how many calls have an unknown cost, reported_calls how many have the cost
-- that the server reported.
CREATE VIEW run_costs AS
SELECT
    r.id AS run_id,
    r.name AS run,
    count(*) AS calls,
    count(*) FILTER (WHERE c.cache_hit) AS cache_hits,
    sum(c.cost_usd) AS cost_usd,
    count(*) FILTER (WHERE c.cost_usd IS NULL) AS unpriced_calls,
    count(*) FILTER (WHERE c.cost_basis = 'reported') AS reported_calls
FROM model_calls AS c
INNER JOIN jobs AS j ON j.id = c.job_id
INNER JOIN runs AS r ON r.id = j.run_id
GROUP BY r.id, r.name;
