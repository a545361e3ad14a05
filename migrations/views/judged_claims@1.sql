-- Runs may reuse an answer, whose values count once. Feedback takes precedence over gold files.
CREATE VIEW judged_claims AS
SELECT DISTINCT ON (document_id, options_hash, provider, model, part, path, confidence)
    analysis_type,
    provider,
    model,
    part,
    path,
    confidence,
    is_right,
    judged_by,
    judged_at,
    document_id,
    job_id
FROM judgments
WHERE confidence IS NOT NULL
ORDER BY
    document_id, options_hash, provider, model, part, path, confidence,
    judged_by = 'feedback' DESC, judged_at DESC, id DESC;
