CREATE VIEW call_examples AS
SELECT
    c.id AS call_id,
    c.job_id,
    c.run,
    c.started_at,
    s.position::integer AS position,
    e.id AS example_id,
    e.version,
    e.feedback_ids,
    e.document_id,
    d.source,
    e.analysis_type,
    e.text,
    e.answer
FROM model_calls AS c
CROSS JOIN LATERAL jsonb_array_elements_text(c.examples) WITH ORDINALITY AS s (example_id, position)
INNER JOIN learned_examples AS e ON e.id = s.example_id::uuid
INNER JOIN documents AS d ON d.id = e.document_id;
