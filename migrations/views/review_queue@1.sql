-- The built-in model has a low confidence only below the threshold of a calibration.
CREATE VIEW review_queue AS
SELECT
    run.name AS run,
    i.source,
    r.analysis_type,
    f.item,
    f.value,
    f.quote,
    f.page,
    f.place,
    f.grounded,
    f.value_in_quote,
    c.confidence,
    c.calibrated_confidence,
    r.agreement,
    d.doubt,
    d.reasons,
    r.needs_review,
    r.confidence AS result_confidence,
    i.message AS review_reason,
    coalesce(f.path, '') AS path,
    r.created_at,
    r.id AS result_id,
    r.job_id,
    r.document_id
FROM results AS r
INNER JOIN jobs AS j ON j.id = r.job_id
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id
LEFT JOIN facts AS f
    ON f.job_id = r.job_id
        AND CASE r.analysis_type
            WHEN 'extraction' THEN f.path ~ '^/(fields|data)(/|$)'
            ELSE f.path IN ('/label', '/primary_label')
        END
LEFT JOIN calibration_segments AS s
    ON s.analysis_type = r.analysis_type
        AND s.provider = r.provider
        AND s.model = r.model
        AND s.part = CASE WHEN f.confidence IS NULL THEN 'result' ELSE 'field' END
        AND coalesce(f.confidence, r.confidence) >= s.from_claim
        AND coalesce(f.confidence, r.confidence) < s.to_claim
CROSS JOIN LATERAL (
    SELECT
        coalesce(f.confidence, r.confidence) AS confidence,
        CASE
            WHEN s.slope = 0 THEN s.worth
            ELSE s.worth + s.slope * (coalesce(f.confidence, r.confidence) - s.from_claim)
        END AS calibrated_confidence
) AS c
CROSS JOIN LATERAL (
    SELECT
        round((
            1 - coalesce(c.calibrated_confidence, c.confidence)
            * coalesce(r.agreement, 1)
            * CASE WHEN f.grounded IS FALSE THEN 0.5 ELSE 1 END
            * CASE WHEN f.value_in_quote IS FALSE THEN 0.5 ELSE 1 END
        )::numeric, 4) AS doubt,
        array_remove(ARRAY[
            CASE WHEN r.needs_review THEN 'needs review' END,
            CASE
                WHEN c.confidence < coalesce(s.accept_from, CASE WHEN r.language_model THEN 0.5 END)
                    THEN 'low confidence'
            END,
            CASE WHEN r.agreement < 0.8 THEN 'disagreement' END,
            CASE WHEN f.grounded IS FALSE THEN 'ungrounded' END,
            CASE WHEN f.value_in_quote IS FALSE THEN 'value not in quote' END
        ], NULL) AS reasons
) AS d
WHERE
    d.reasons <> '{}'
    AND NOT EXISTS (SELECT FROM experiments AS e WHERE e.run_id = j.run_id)
    AND CASE
        WHEN f.id IS NOT NULL THEN f.verdict IS NULL
        ELSE NOT EXISTS (
            SELECT FROM feedback AS b
            WHERE
                b.document_id = r.document_id
                AND b.analysis_type = r.analysis_type
                AND b.path = ''
                AND b.withdraws IS NULL
                AND b.judged = r.output
                AND NOT EXISTS (SELECT FROM feedback AS w WHERE w.withdraws = b.id)
        )
    END;
