-- The closing account of each run: two lines that must balance.
-- Intakes: what was found is the sum over the outcomes, and all of it was taken in.
-- intake_status says how far that is; until it is finished, not_taken counts what is listed only.
-- Jobs: accepted intakes times the analysis types is the sum over the states.
-- Reused: those that have the answer of another job.
CREATE VIEW run_accounts AS
WITH intake_sums AS (
    SELECT
        run_id,
        count(*) AS intakes,
        count(*) FILTER (WHERE outcome = 'accepted') AS accepted,
        count(*) FILTER (WHERE outcome = 'duplicate') AS duplicate,
        count(*) FILTER (WHERE outcome = 'unsupported') AS unsupported,
        count(*) FILTER (WHERE outcome = 'unreadable') AS unreadable,
        count(*) FILTER (WHERE outcome = 'encrypted') AS encrypted,
        count(*) FILTER (WHERE outcome = 'empty') AS empty,
        count(*) FILTER (WHERE outcome = 'too_large') AS too_large,
        count(*) FILTER (WHERE outcome = 'refused') AS refused,
        count(*) FILTER (WHERE outcome = 'not_taken') AS not_taken
    FROM intakes
    GROUP BY run_id
),
part_sums AS (
    SELECT
        run_id,
        sum(documents_taken) AS parts
    FROM listed_files
    GROUP BY run_id
),
job_sums AS (
    SELECT
        run_id,
        count(*) AS jobs,
        count(*) FILTER (WHERE status = 'queued') AS queued,
        count(*) FILTER (WHERE status = 'running') AS running,
        count(*) FILTER (WHERE status = 'waiting') AS waiting,
        count(*) FILTER (WHERE status = 'synthesizing') AS synthesizing,
        count(*) FILTER (WHERE status = 'paused') AS paused,
        count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
        count(*) FILTER (WHERE status = 'partial') AS partial,
        count(*) FILTER (WHERE status = 'failed') AS failed,
        count(*) FILTER (WHERE status = 'quarantined') AS quarantined,
        count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
        count(*) FILTER (WHERE reused_from IS NOT NULL AND status = 'succeeded') AS reused
    FROM jobs
    GROUP BY run_id
)
SELECT
    r.id AS run_id,
    r.name AS run,
    r.status,
    (r.found_count + coalesce(p.parts, 0))::integer AS intakes_found,
    coalesce(i.accepted, 0) AS accepted,
    coalesce(i.duplicate, 0) AS duplicate,
    coalesce(i.unsupported, 0) AS unsupported,
    coalesce(i.unreadable, 0) AS unreadable,
    coalesce(i.encrypted, 0) AS encrypted,
    coalesce(i.empty, 0) AS empty,
    coalesce(i.too_large, 0) AS too_large,
    coalesce(i.refused, 0) AS refused,
    CASE
        WHEN r.intake_finished_at IS NULL AND r.intake_until > clock_timestamp() THEN NULL
        ELSE r.found_count + coalesce(p.parts, 0) = coalesce(
            i.accepted + i.duplicate + i.unsupported + i.unreadable
            + i.encrypted + i.empty + i.too_large + i.refused, 0
        )
    END AS intakes_balance,
    coalesce(i.accepted, 0) * r.type_count AS jobs_planned,
    coalesce(j.queued, 0) AS queued,
    coalesce(j.running, 0) AS running,
    coalesce(j.waiting, 0) AS waiting,
    coalesce(j.synthesizing, 0) AS synthesizing,
    coalesce(j.paused, 0) AS paused,
    coalesce(j.succeeded, 0) AS succeeded,
    coalesce(j.partial, 0) AS partial,
    coalesce(j.failed, 0) AS failed,
    coalesce(j.quarantined, 0) AS quarantined,
    coalesce(j.cancelled, 0) AS cancelled,
    coalesce(i.accepted, 0) * r.type_count = coalesce(
        j.queued + j.running + j.waiting + j.synthesizing + j.paused
        + j.succeeded + j.partial + j.failed + j.quarantined + j.cancelled, 0
    ) AS jobs_balance,
    coalesce(j.reused, 0) AS reused,
    coalesce(i.not_taken, 0) AS not_taken,
    CASE
        WHEN r.intake_finished_at IS NOT NULL THEN 'finished'
        WHEN r.intake_until > clock_timestamp() THEN 'taking_in'
        WHEN r.status = 'cancelled' AND coalesce(i.not_taken, 0) = 0 THEN 'finished'
        ELSE 'interrupted'
    END AS intake_status
FROM runs AS r
LEFT JOIN intake_sums AS i ON i.run_id = r.id
LEFT JOIN part_sums AS p ON p.run_id = r.id
LEFT JOIN job_sums AS j ON j.run_id = r.id;
