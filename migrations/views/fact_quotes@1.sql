CREATE VIEW fact_quotes AS
SELECT
    run.name AS run,
    i.source,
    j.analysis_type,
    f.item,
    f.final_value,
    f.value,
    f.corrected_value,
    f.verdict,
    f.number,
    f.currency,
    f.unit,
    f.scale,
    f.date,
    f.confidence,
    f.quote,
    f.start_char,
    f.end_char,
    f.grounded,
    f.grounding,
    f.value_in_quote,
    f.page,
    f.place,
    f.boxes,
    f.path,
    f.parent,
    f.row_index,
    j.document_id,
    f.job_id,
    f.accepted,
    t.trust,
    t.reasons,
    judged.author AS judged_by,
    judged.created_at AS judged_at
FROM facts AS f
INNER JOIN jobs AS j ON j.id = f.job_id
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id
LEFT JOIN fact_trust AS t ON t.fact_id = f.id
LEFT JOIN LATERAL (
    SELECT
        (array_agg(b.author ORDER BY b.created_at DESC, b.id DESC))[1] AS author,
        max(b.created_at) AS created_at
    FROM feedback AS b
    WHERE
        f.verdict IS NOT NULL
        AND b.document_id = j.document_id
        AND b.analysis_type = j.analysis_type
        AND CASE
            WHEN b.field IS NULL THEN starts_with(f.path || '/', b.path || '/')
            WHEN starts_with(b.field, '/')
                THEN starts_with(f.path || '/', '/data' || b.field || '/')
            ELSE b.field = f.item
        END
        AND b.withdraws IS NULL
        AND NOT EXISTS (SELECT FROM feedback AS w WHERE w.withdraws = b.id)
) AS judged ON true
WHERE NOT EXISTS (SELECT FROM experiments AS e WHERE e.run_id = j.run_id);
