CREATE VIEW corrections AS
SELECT DISTINCT ON (f.document_id, f.analysis_type, f.question, coalesce(f.field, f.path))
    d.source,
    f.analysis_type,
    coalesce(f.field, f.path) AS item,
    CASE f.verdict
        WHEN 'corrected' THEN f.corrected WHEN 'approved' THEN f.judged
    END AS right_value,
    f.judged,
    f.verdict,
    f.author,
    f.created_at AS said_at,
    f.note,
    f.quote,
    f.start_char,
    f.end_char,
    (
        SELECT count(*)
        FROM results AS r
        INNER JOIN jobs AS j ON j.id = r.job_id
        WHERE
            r.document_id = f.document_id
            AND r.analysis_type = f.analysis_type
            AND f.question = j.options::jsonb - ARRAY[
                'confidence_threshold', 'votes', 'critique', 'principles', 'templates',
                'examples', 'chunk_tokens'
            ]
    ) AS results,
    f.question,
    f.document_id,
    f.id AS feedback_id
FROM feedback AS f
INNER JOIN documents AS d ON d.id = f.document_id
WHERE
    f.withdraws IS NULL
    AND NOT EXISTS (SELECT FROM feedback AS w WHERE w.withdraws = f.id)
ORDER BY
    f.document_id,
    f.analysis_type,
    f.question,
    coalesce(f.field, f.path),
    f.created_at DESC,
    f.id DESC;
