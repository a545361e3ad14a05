-- Results whose prompt template has a newer version by now.
-- The old versions are found first: there are few of them, and mostly no result has one.
CREATE VIEW stale_results AS
WITH versions AS (
    SELECT
        version,
        split_part(version, '@', 1) AS name,
        split_part(version, '@', 2)::integer AS number
    FROM prompt_versions
),

newest AS (
    SELECT
        name,
        max(number) AS number
    FROM versions
    GROUP BY name
)

SELECT
    run.name AS run,
    i.source,
    r.analysis_type,
    r.model,
    r.prompt_version,
    n.name || '@' || n.number AS newest_prompt_version,
    r.created_at,
    r.job_id
FROM versions AS v
INNER JOIN newest AS n ON n.name = v.name AND v.number < n.number
INNER JOIN results AS r ON r.prompt_version = v.version
INNER JOIN jobs AS j ON j.id = r.job_id
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id;
