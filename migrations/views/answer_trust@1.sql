-- The state of an answer as a whole, and what the states of its values depend on.
CREATE VIEW answer_trust AS
SELECT
    r.job_id,
    r.id AS result_id,
    trust_of(
        '', r.verdict, r.accepted AND i.message IS NULL, d.reasons, r.confidence,
        CASE
            WHEN r.analysis_type = 'extraction' OR r.output ?| ARRAY['label', 'primary_label']
                THEN NULL
            ELSE accept.whole_from
        END,
        true
    ) AS trust,
    d.reasons,
    r.confidence,
    r.failed_chunks = '[]' AND i.message IS NULL AS is_read,
    accept.fields_from AS accept_fields_from,
    accept.whole_from AS accept_from
FROM results AS r
INNER JOIN jobs AS j ON j.id = r.job_id
INNER JOIN intakes AS i ON i.id = j.intake_id
CROSS JOIN LATERAL (
    SELECT nullif(
        array_remove(
            i.message || ARRAY(SELECT jsonb_array_elements_text(r.doubts -> '')), NULL
        ), '{}'
    ) AS reasons
) AS d
CROSS JOIN LATERAL (
    SELECT
        (
            array_agg(c.accept_from ORDER BY c.learnt_at DESC, c.id DESC)
            FILTER (WHERE c.part = 'field')
        )[1] AS fields_from,
        (
            array_agg(c.accept_from ORDER BY c.learnt_at DESC, c.id DESC)
            FILTER (WHERE c.part = 'result')
        )[1] AS whole_from
    FROM calibrations AS c
    WHERE
        c.analysis_type = r.analysis_type
        AND c.provider = r.provider
        AND c.model = r.model
) AS accept;
