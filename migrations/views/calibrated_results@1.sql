CREATE VIEW calibrated_results AS
SELECT
    r.run,
    r.source,
    r.analysis_type,
    r.provider,
    r.model,
    r.confidence,
    CASE
        WHEN s.slope = 0 THEN s.worth
        ELSE s.worth + s.slope * (r.confidence - s.from_claim)
    END AS calibrated_confidence,
    r.confidence >= s.accept_from AS acceptable,
    s.judged,
    s.learnt_at,
    r.job_id,
    r.document_id,
    r.result_id
FROM document_results AS r
LEFT JOIN calibration_segments AS s
    ON s.analysis_type = r.analysis_type
        AND s.provider = r.provider
        AND s.model = r.model
        AND s.part = 'result'
        AND r.confidence >= s.from_claim
        AND r.confidence < s.to_claim;
