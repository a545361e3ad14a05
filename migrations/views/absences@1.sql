-- What a document does not say: values outside of rows that no chunk gave, and the evidence for it.
CREATE VIEW absences AS
SELECT
    run.name AS run,
    i.source,
    f.item AS field,
    t.trust,
    d.character_count,
    c.characters AS characters_read,
    c.chunk_count,
    c.answered AS answered_chunks,
    coalesce((j.options ->> 'votes')::integer, 1) AS votes,
    coalesce(
        (r.output #>> (string_to_array(substr(f.path, 2), '/') || 'agreement'::text))::float8,
        r.agreement
    ) AS agreement,
    f.verdict,
    f.path,
    j.document_id,
    j.id AS job_id
FROM facts AS f
INNER JOIN fact_trust AS t ON t.fact_id = f.id
INNER JOIN results AS r ON r.job_id = f.job_id
INNER JOIN jobs AS j ON j.id = f.job_id
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id
INNER JOIN documents AS d ON d.id = j.document_id
CROSS JOIN LATERAL (
    SELECT
        sum(end_char - start_char) FILTER (WHERE status = 'succeeded') AS characters,
        nullif(count(*), 0) AS chunk_count,
        nullif(count(*), 0) - count(*) FILTER (WHERE status <> 'succeeded') AS answered
    FROM chunks
    WHERE job_id = coalesce(j.reused_from, j.id)
) AS c
WHERE
    r.analysis_type = 'extraction'
    AND f.value IS NULL
    AND f.final_value IS NULL
    AND f.parent IS NULL
    AND NOT EXISTS (SELECT FROM experiments AS e WHERE e.run_id = j.run_id);
