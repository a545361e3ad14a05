CREATE VIEW calibrated_facts AS
SELECT
    r.run,
    r.source,
    r.provider,
    r.model,
    f.path,
    f.item,
    f.final_value,
    f.quote,
    f.confidence,
    CASE
        WHEN s.slope = 0 THEN s.worth
        ELSE s.worth + s.slope * (f.confidence - s.from_claim)
    END AS calibrated_confidence,
    f.confidence >= s.accept_from AS acceptable,
    s.judged,
    s.learnt_at,
    f.job_id,
    r.document_id
FROM facts AS f
INNER JOIN document_results AS r ON r.job_id = f.job_id AND r.analysis_type = 'extraction'
LEFT JOIN calibration_segments AS s
    ON s.analysis_type = r.analysis_type
        AND s.provider = r.provider
        AND s.model = r.model
        AND s.part = 'field'
        AND f.confidence >= s.from_claim
        AND f.confidence < s.to_claim
WHERE f.confidence IS NOT NULL;
