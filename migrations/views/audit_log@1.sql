CREATE VIEW audit_log AS
SELECT occurred_at, actor, action, subject FROM audit_events
UNION ALL
SELECT
    b.created_at,
    b.author,
    CASE WHEN b.withdraws IS NULL THEN b.verdict ELSE 'withdrew' END,
    b.job_id || b.path
FROM feedback AS b
UNION ALL
SELECT created_at, author, action, concat_ws(' ', column_name, array_to_string(names, ' = '))
FROM entity_decisions
UNION ALL
SELECT erased_at, requested_by, 'erased', concat_ws(' ', document_id, sha256)
FROM erasures;
