-- The newest job with a result, or else the newest.
CREATE VIEW answer_jobs AS
SELECT DISTINCT ON (run.saved_as, j.document_id, j.analysis_type)
    run.saved_as,
    j.analysis_type,
    j.document_id,
    j.id AS job_id,
    regexp_replace(i.source, '^.*[/\\](?=[^/\\])', '') AS document,
    i.source,
    run.name AS run,
    CASE WHEN r.nothing_found THEN 'nothing found' ELSE j.status END AS status,
    r.id IS NULL OR r.needs_review AS needs_review,
    r.confidence,
    coalesce(r.corrected_output, r.output) AS output,
    r.created_at AS analyzed_at,
    a.trust,
    a.is_read,
    a.accept_fields_from AS accept_from
FROM runs AS run
INNER JOIN jobs AS j ON j.run_id = run.id
INNER JOIN intakes AS i ON i.id = j.intake_id
LEFT JOIN results AS r ON r.job_id = j.id
LEFT JOIN answer_trust AS a ON a.job_id = j.id
WHERE run.saved_as IS NOT NULL
ORDER BY
    run.saved_as,
    j.document_id,
    j.analysis_type,
    r.id IS NULL,
    r.created_at DESC,
    j.id DESC;
