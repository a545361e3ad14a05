-- The bounds of a change follow Newcombe 1998, method 10, and Zou and Donner 2008.
-- F1 and means have the bounds of a bootstrap, which are too narrow for has_dropped if all cases are
-- alike.
CREATE VIEW evaluation_changes AS
WITH pairs AS (
    SELECT
        *,
        lag(evaluated_at) OVER along AS earlier_at,
        lag(value) OVER along AS earlier_value,
        lag(low) OVER along AS earlier_low,
        lag(high) OVER along AS earlier_high,
        lag(count) OVER along AS earlier_count
    FROM evaluation_history
    WHERE is_whole AND metric <> 'confusion'
    WINDOW along AS (
        PARTITION BY run, profile, analysis_type, gold_file, metric, label
        ORDER BY evaluated_at, evaluation_id
    )
),
changes AS (
    SELECT
        *,
        value - earlier_value AS change,
        value - earlier_value
        - sqrt(power(value - low, 2) + power(earlier_high - earlier_value, 2)) AS change_low,
        value - earlier_value
        + sqrt(power(high - value, 2) + power(earlier_value - earlier_low, 2)) AS change_high
    FROM pairs
    WHERE earlier_at IS NOT NULL
)
SELECT
    evaluated_at,
    run,
    profile,
    analysis_type,
    gold_file,
    metric,
    label,
    value,
    low,
    high,
    count,
    earlier_at,
    earlier_value,
    earlier_count,
    change,
    change_low,
    change_high,
    coalesce(change_high < 0, FALSE) AND metric IN (
        'accuracy', 'precision', 'recall', 'match', 'exact_match', 'row_recall', 'page_accuracy'
    ) AS has_dropped,
    evaluation_id
FROM changes;
