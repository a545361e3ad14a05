CREATE VIEW calibration_segments AS
WITH in_force AS (
    SELECT DISTINCT ON (analysis_type, provider, model, part) *
    FROM calibrations
    ORDER BY analysis_type, provider, model, part, learnt_at DESC, id DESC
),
points AS (
    SELECT
        c.id,
        p.place,
        (p.pair ->> 0)::double precision AS claim,
        (p.pair ->> 1)::double precision AS worth
    FROM in_force AS c
    CROSS JOIN LATERAL jsonb_array_elements(c.points) WITH ORDINALITY AS p (pair, place)
),
pieces AS (
    SELECT
        id,
        claim AS from_claim,
        coalesce(lead(claim) OVER along, 'infinity') AS to_claim,
        worth,
        coalesce((lead(worth) OVER along - worth) / (lead(claim) OVER along - claim), 0) AS slope
    FROM points
    WINDOW along AS (PARTITION BY id ORDER BY place)
    UNION ALL
    SELECT id, '-infinity', claim, worth, 0
    FROM points
    WHERE place = 1
)
SELECT
    c.analysis_type,
    c.provider,
    c.model,
    c.part,
    p.from_claim,
    p.to_claim,
    p.worth,
    p.slope,
    c.judged,
    c.accept_from,
    c.learnt_at,
    c.id AS calibration_id
FROM pieces AS p
INNER JOIN in_force AS c ON c.id = p.id;
