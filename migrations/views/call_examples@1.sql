-- The learned examples in the prompt of each model call, in the order of the prompt. They are
-- answers that users approved or corrected.
-- feedback_ids are the rows of feedback that an example is made from. version numbers the examples
-- of one document. source is the first name of the document.
-- Examples of pruned documents are not listed.
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
