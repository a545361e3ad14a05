-- How much of each document reached a successful answer, and which characters did not.
CREATE VIEW document_coverage AS
SELECT
    run.name AS run,
    i.source,
    j.analysis_type,
    j.status,
    d.character_count,
    j.chunk_count,
    coalesce(sum(c.end_char - c.start_char) FILTER (WHERE c.status = 'succeeded'), 0)
        AS covered_characters,
    coalesce(r.coverage, 0) AS coverage,
    jsonb_agg(
        jsonb_build_object(
            'start_char', c.start_char, 'end_char', c.end_char, 'error_code', c.error_code
        ) ORDER BY c.position
    ) FILTER (WHERE c.status <> 'succeeded') AS uncovered,
    j.id AS job_id
FROM jobs AS j
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id
INNER JOIN documents AS d ON d.id = j.document_id
LEFT JOIN chunks AS c ON c.job_id = j.id
LEFT JOIN results AS r ON r.job_id = j.id
GROUP BY run.name, i.source, j.id, d.character_count, r.coverage;
