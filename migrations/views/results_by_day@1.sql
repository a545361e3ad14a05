-- Results by analysis type and day (UTC), with the means of their measures.
CREATE VIEW results_by_day AS
SELECT
    (created_at AT TIME ZONE 'UTC')::date AS day,
    analysis_type,
    count(*) AS results,
    count(*) FILTER (WHERE status = 'partial') AS partial,
    count(*) FILTER (WHERE needs_review) AS needing_review,
    round(avg(confidence)::numeric, 3) AS mean_confidence,
    round(avg(quality)::numeric, 3) AS mean_quality,
    round(avg(coverage)::numeric, 3) AS mean_coverage
FROM document_results
GROUP BY 1, 2;
