CREATE VIEW budget_accounts AS
WITH unpriced AS (
    SELECT
        coalesce(c.run_id, j.run_id) AS run_id,
        (c.started_at AT TIME ZONE 'UTC')::date AS day,
        count(*) AS calls
    FROM model_calls AS c
    LEFT JOIN jobs AS j ON j.id = c.job_id
    WHERE c.cost_usd IS NULL
    GROUP BY 1, 2
),

unpriced_scopes AS (
    SELECT
        'run:' || run_id AS scope,
        sum(calls) AS calls
    FROM unpriced
    WHERE run_id IS NOT NULL
    GROUP BY 1
    UNION ALL
    SELECT
        'day:' || to_char(day, 'YYYY-MM-DD') AS scope,
        sum(calls) AS calls
    FROM unpriced
    GROUP BY 1
)

SELECT
    b.scope,
    r.name AS run,
    b.cap_usd,
    b.spent_usd,
    b.reserved_usd,
    b.cap_usd - b.spent_usd - b.reserved_usd AS left_usd,
    coalesce(u.calls, 0)::bigint AS unpriced_calls
FROM budgets AS b
LEFT JOIN runs AS r ON r.id = b.run_id
LEFT JOIN unpriced_scopes AS u ON u.scope = b.scope;
