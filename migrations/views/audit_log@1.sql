CREATE VIEW audit_log AS
SELECT
    occurred_at,
    actor,
    action,
    subject
FROM audit_events;
