-- Results whose prompt template has a newer version by now.
CREATE VIEW stale_results AS
WITH newest AS (
    SELECT
        split_part(version, '@', 1) AS name,
        max(split_part(version, '@', 2)::integer) AS number
    FROM prompt_versions
    GROUP BY 1
)
SELECT
    r.run,
    r.source,
    r.analysis_type,
    r.model,
    r.prompt_version,
    n.name || '@' || n.number AS newest_prompt_version,
    r.created_at,
    r.job_id
FROM document_results AS r
INNER JOIN newest AS n ON n.name = split_part(r.prompt_version, '@', 1)
WHERE split_part(r.prompt_version, '@', 2)::integer < n.number;
