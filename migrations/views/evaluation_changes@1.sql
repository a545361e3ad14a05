-- The change of each metric since the previous evaluation of the same run or profile, analysis type
-- and truth.
-- change_low and change_high are 95 % bounds of the change, computed from the bounds of both values
-- (Newcombe 1998, method 10; Zou and Donner 2008); they are null if a value has no bounds.
-- has_dropped is set if a share of right answers fell and change_high is below 0. It is never set
-- for F1 and means, whose bounds are those of a bootstrap: they are too narrow if all cases are
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
