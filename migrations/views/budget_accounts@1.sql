-- Each budget with what is spent, what is reserved for calls in flight, and what is left of its cap.
-- scope is run:ID or day:YYYY-MM-DD (UTC); cap_usd and left_usd are null where there is no cap.
CREATE VIEW budget_accounts AS
SELECT
    b.scope,
    r.name AS run,
    b.cap_usd,
    b.spent_usd,
    b.reserved_usd,
    b.cap_usd - b.spent_usd - b.reserved_usd AS left_usd
FROM budgets AS b
LEFT JOIN runs AS r ON r.id = b.run_id;
