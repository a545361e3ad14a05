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
            ELSE whole.accept_from
        END,
        true
    ) AS trust,
    d.reasons,
    r.confidence,
    r.failed_chunks = '[]'
    AND coalesce(i.reason, '') NOT IN ('pages_unread', 'fields_unread') AS is_read,
    field.accept_from AS accept_fields_from,
    whole.accept_from
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
LEFT JOIN LATERAL (
    SELECT c.accept_from
    FROM calibrations AS c
    WHERE
        c.analysis_type = r.analysis_type
        AND c.provider = r.provider
        AND c.model = r.model
        AND c.part = 'field'
    ORDER BY c.learnt_at DESC, c.id DESC
    LIMIT 1
) AS field ON true
LEFT JOIN LATERAL (
    SELECT c.accept_from
    FROM calibrations AS c
    WHERE
        c.analysis_type = r.analysis_type
        AND c.provider = r.provider
        AND c.model = r.model
        AND c.part = 'result'
    ORDER BY c.learnt_at DESC, c.id DESC
    LIMIT 1
) AS whole ON true;
