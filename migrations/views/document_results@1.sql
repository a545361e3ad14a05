CREATE VIEW document_results AS
SELECT
    r.id AS result_id,
    j.id AS job_id,
    run.name AS run,
    i.source,
    d.id AS document_id,
    d.title,
    r.analysis_type,
    j.status,
    coalesce(r.corrected_output, r.output) AS output,
    r.corrected_output IS NOT NULL AS corrected,
    r.nothing_found,
    r.confidence,
    r.quality,
    r.coverage,
    r.needs_review,
    r.provider,
    r.model,
    r.language_model,
    r.prompt_version,
    j.reused_from IS NOT NULL AS reused,
    r.created_at,
    r.agreement,
    r.critique ->> 'outcome' AS critique_outcome,
    r.missing_rows,
    r.row_counts,
    CASE WHEN r.needs_review
        THEN nullif(concat_ws(' ', i.message, r.review_reason), '')
    END AS review_reason,
    r.failed_checks,
    d.flags,
    r.accepted,
    d.transcribed_by,
    run.saved_as,
    coalesce(
        coalesce(r.corrected_output, r.output) ->> 'primary_label',
        coalesce(r.corrected_output, r.output) ->> 'label'
    ) AS label,
    NOT EXISTS (SELECT FROM facts WHERE job_id = r.job_id AND grounding = 'none') AS grounded,
    r.output AS answered_output,
    judged.author AS judged_by,
    judged.created_at AS judged_at
FROM results AS r
INNER JOIN jobs AS j ON j.id = r.job_id
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id
INNER JOIN documents AS d ON d.id = j.document_id
LEFT JOIN LATERAL (
    SELECT
        (array_agg(b.author ORDER BY b.created_at DESC, b.id DESC))[1] AS author,
        max(b.created_at) AS created_at
    FROM feedback AS b
    WHERE
        b.document_id = r.document_id
        AND b.analysis_type = j.analysis_type
        AND (
            r.corrected_output IS NOT NULL
            OR b.question = j.options::jsonb - ARRAY[
                'confidence_threshold', 'votes', 'critique', 'principles', 'templates',
                'examples', 'chunk_tokens'
            ]
        )
        AND b.withdraws IS NULL
        AND NOT EXISTS (SELECT FROM feedback AS w WHERE w.withdraws = b.id)
) AS judged ON true
WHERE NOT EXISTS (SELECT FROM experiments AS e WHERE e.run_id = j.run_id);
