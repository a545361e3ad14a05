-- A user's own templates have no version numbers.
CREATE VIEW stale_results AS
WITH newest AS (
    SELECT
        split_part(version, '@', 1) AS name,
        max(substring(version FROM '@([0-9]+)$')::integer) AS number
    FROM prompt_versions
    GROUP BY 1
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
FROM newest AS n
INNER JOIN results AS r
    ON
        n.name = split_part(r.prompt_version, '@', 1)
        AND n.number > substring(r.prompt_version FROM '@([0-9]+)$')::integer
INNER JOIN jobs AS j ON j.id = r.job_id
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id;
