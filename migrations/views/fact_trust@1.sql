-- The values that people decide on: those of extractions, and labels.
CREATE VIEW fact_trust AS
SELECT
    f.job_id,
    f.path,
    f.item,
    f.parent,
    t.trust,
    CASE
        WHEN t.trust = 'check' THEN array_remove(
            f.doubts || CASE
                WHEN c.confidence < c.accept_from THEN 'below the calibrated threshold'
            END,
            NULL
        )
    END AS reasons,
    coalesce(c.confidence, r.confidence) AS confidence,
    f.id AS fact_id
FROM facts AS f
INNER JOIN results AS r ON r.job_id = f.job_id
INNER JOIN answer_trust AS a ON a.job_id = f.job_id
CROSS JOIN LATERAL (
    SELECT
        CASE r.analysis_type WHEN 'extraction' THEN f.confidence ELSE r.confidence END
            AS confidence,
        CASE r.analysis_type WHEN 'extraction' THEN a.accept_fields_from ELSE a.accept_from END
            AS accept_from
) AS c
CROSS JOIN LATERAL (
    SELECT trust_of(
        f.value, f.verdict, f.accepted, f.doubts, c.confidence, c.accept_from, a.is_read
    ) AS trust
) AS t
WHERE
    CASE r.analysis_type
        WHEN 'extraction' THEN f.path ~ '^/(fields|data)(/|$)'
        ELSE f.path IN ('/label', '/primary_label')
    END;
