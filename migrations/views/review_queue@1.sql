-- A row for each cell in the state `check`: the values of an item, or an answer as a whole. Answers
-- that were replaced, in their table or without one, and those about the documents of suites and
-- experiments, are left out.
CREATE VIEW review_queue AS
SELECT
    run.name AS run,
    i.source,
    r.analysis_type,
    c.item,
    c.value,
    c.quote,
    c.page,
    c.place,
    c.reasons,
    c.confidence,
    d.calibrated_confidence,
    EXISTS (
        SELECT
        FROM certified_answers AS certified
        WHERE
            certified.to_check ? r.job_id::text
            AND certified.analysis_type = r.analysis_type
            AND (
                r.analysis_type <> 'extraction'
                OR c.item = certified.field
                OR starts_with(c.path || '/', '/data' || certified.field || '/')
            )
    ) AS blocks_certificate,
    round((
        1 - coalesce(d.calibrated_confidence, c.confidence) * 0.5 ^ cardinality(c.reasons)
    )::numeric, 4) AS doubt,
    coalesce(c.path, '') AS path,
    run.saved_as,
    r.created_at,
    r.id AS result_id,
    r.job_id,
    r.document_id
FROM results AS r
INNER JOIN jobs AS j ON j.id = r.job_id
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id
CROSS JOIN LATERAL (
    (
        SELECT DISTINCT ON (t.parent, t.item)
            f.item,
            f.value,
            f.quote,
            f.page,
            f.place,
            t.reasons,
            t.confidence,
            CASE WHEN f.confidence IS NULL THEN 'result' ELSE 'field' END AS part,
            f.path
        FROM fact_trust AS t
        INNER JOIN facts AS f ON f.id = t.fact_id
        WHERE t.job_id = r.job_id AND t.trust = 'check'
        ORDER BY t.parent, t.item, f.id
    )
    UNION ALL
    SELECT
        NULL, NULL, NULL, NULL, NULL,
        coalesce(a.reasons, ARRAY['below the calibrated threshold']),
        a.confidence, 'result', NULL
    FROM answer_trust AS a
    WHERE a.job_id = r.job_id AND a.trust = 'check'
) AS c
LEFT JOIN calibration_segments AS s
    ON s.analysis_type = r.analysis_type
        AND s.provider = r.provider
        AND s.model = r.model
        AND s.part = c.part
        AND c.confidence >= s.from_claim
        AND c.confidence < s.to_claim
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN s.slope = 0 THEN s.worth
        ELSE s.worth + s.slope * (c.confidence - s.from_claim)
    END AS calibrated_confidence
) AS d
WHERE
    r.needs_review
    AND run.options ->> 'is_suite' IS DISTINCT FROM 'true'
    AND NOT EXISTS (SELECT FROM experiments AS e WHERE e.run_id = run.id)
    AND NOT EXISTS (
        SELECT
        FROM results AS newer
        INNER JOIN jobs AS again ON again.id = newer.job_id
        INNER JOIN runs AS later ON later.id = again.run_id
        WHERE
            newer.document_id = r.document_id
            AND newer.id > r.id
            AND again.analysis_type = r.analysis_type
            AND CASE
                WHEN run.saved_as IS NULL THEN again.options_hash = j.options_hash
                ELSE later.saved_as = run.saved_as
            END
            AND later.options ->> 'is_suite' IS DISTINCT FROM 'true'
            AND NOT EXISTS (SELECT FROM experiments AS e WHERE e.run_id = later.id)
    );
