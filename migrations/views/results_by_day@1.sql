CREATE VIEW results_by_day AS
SELECT
    (r.created_at AT TIME ZONE 'UTC')::date AS day,
    r.analysis_type,
    count(*) AS results,
    count(*) FILTER (WHERE j.status = 'partial') AS partial,
    count(*) FILTER (WHERE r.needs_review) AS needing_review,
    round(avg(r.confidence)::numeric, 3) AS mean_confidence,
    round(avg(r.quality)::numeric, 3) AS mean_quality,
    round(avg(r.coverage)::numeric, 3) AS mean_coverage
FROM results AS r
INNER JOIN jobs AS j ON j.id = r.job_id
GROUP BY 1, 2;
