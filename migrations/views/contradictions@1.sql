CREATE VIEW contradictions AS
SELECT
    run.name AS run,
    i.source,
    f.item AS field,
    f.value AS kept_value,
    f.final_value,
    f.quote AS kept_quote,
    f.place AS kept_place,
    f.start_char AS kept_start_char,
    c.kept_because,
    c.value AS other_value,
    c.quote AS other_quote,
    c.place AS other_place,
    c.start_char AS other_start_char,
    f.path,
    j.document_id,
    r.job_id
FROM results AS r
INNER JOIN jobs AS j ON j.id = r.job_id
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id
CROSS JOIN LATERAL jsonb_to_recordset(r.contradictions) AS c (
    path text, value text, quote text, place text, start_char integer, kept_because text
)
INNER JOIN facts AS f ON f.job_id = r.job_id AND f.path = c.path
WHERE
    r.contradictions IS NOT NULL
    AND NOT EXISTS (SELECT FROM experiments AS e WHERE e.run_id = j.run_id);
