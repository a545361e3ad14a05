CREATE VIEW evaluation_history AS
SELECT
    e.evaluated_at,
    e.run,
    e.profile,
    e.analysis_type,
    e.is_whole,
    e.provider,
    e.model,
    e.prompt_version,
    e.gold_file,
    e.gold_sha256,
    e.judged,
    e.unjudged,
    e.missing,
    m.metric,
    m.label,
    m.found,
    m.value,
    m.low,
    m.high,
    m.count,
    e.id AS evaluation_id,
    e.is_held_out
FROM evaluations AS e
INNER JOIN evaluation_measures AS m ON m.evaluation_id = e.id;
