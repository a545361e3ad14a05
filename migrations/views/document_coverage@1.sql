-- The chunks are read for each job, so that the first rows are returned early.
CREATE VIEW document_coverage AS
SELECT
    run.name AS run,
    i.source,
    j.analysis_type,
    j.status,
    d.character_count,
    j.chunk_count,
    coalesce(c.covered_characters, 0) AS covered_characters,
    coalesce(r.coverage, 0) AS coverage,
    c.uncovered,
    j.id AS job_id
FROM jobs AS j
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id
INNER JOIN documents AS d ON d.id = j.document_id
LEFT JOIN results AS r ON r.job_id = j.id
CROSS JOIN LATERAL (
    SELECT
        sum(end_char - start_char) FILTER (WHERE status = 'succeeded') AS covered_characters,
        jsonb_agg(
            jsonb_build_object(
                'start_char', start_char, 'end_char', end_char, 'error_code', error_code
            ) ORDER BY position
        ) FILTER (WHERE status <> 'succeeded') AS uncovered
    FROM chunks
    WHERE job_id = j.id
) AS c;
