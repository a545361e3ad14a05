-- The sums are computed per run, so that querying the newest runs does not read all of them.
CREATE VIEW run_accounts AS
SELECT
    r.id AS run_id,
    r.name AS run,
    r.status,
    (r.found_count + p.parts)::integer AS intakes_found,
    i.accepted,
    i.duplicate,
    i.unsupported,
    i.unreadable,
    i.encrypted,
    i.empty,
    i.too_large,
    i.refused,
    CASE
        WHEN r.intake_finished_at IS NULL AND r.lease_until > clock_timestamp() THEN NULL
        ELSE r.found_count + p.parts = (
            i.accepted + i.duplicate + i.unsupported + i.unreadable
            + i.encrypted + i.empty + i.too_large + i.refused
        )
    END AS intakes_balance,
    i.accepted * r.type_count AS jobs_planned,
    j.queued,
    j.running,
    j.waiting,
    j.synthesizing,
    j.paused,
    j.succeeded,
    j.partial,
    j.failed,
    j.quarantined,
    j.cancelled,
    i.accepted * r.type_count = (
        j.queued + j.running + j.waiting + j.synthesizing + j.paused
        + j.succeeded + j.partial + j.failed + j.quarantined + j.cancelled
    ) AS jobs_balance,
    u.reused,
    i.not_taken,
    CASE
        WHEN r.intake_finished_at IS NOT NULL THEN 'finished'
        WHEN r.lease_until > clock_timestamp() THEN 'taking_in'
        WHEN r.status = 'cancelled' AND i.not_taken = 0 THEN 'finished'
        WHEN r.status <> 'cancelled' AND p.for_readers THEN 'taking_in'
        ELSE 'interrupted'
    END AS intake_status
FROM runs AS r
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(intakes) FILTER (WHERE outcome = 'accepted'), 0)::bigint AS accepted,
        coalesce(sum(intakes) FILTER (WHERE outcome = 'duplicate'), 0)::bigint AS duplicate,
        coalesce(sum(intakes) FILTER (WHERE outcome = 'unsupported'), 0)::bigint AS unsupported,
        coalesce(sum(intakes) FILTER (WHERE outcome = 'unreadable'), 0)::bigint AS unreadable,
        coalesce(sum(intakes) FILTER (WHERE outcome = 'encrypted'), 0)::bigint AS encrypted,
        coalesce(sum(intakes) FILTER (WHERE outcome = 'empty'), 0)::bigint AS empty,
        coalesce(sum(intakes) FILTER (WHERE outcome = 'too_large'), 0)::bigint AS too_large,
        coalesce(sum(intakes) FILTER (WHERE outcome = 'refused'), 0)::bigint AS refused,
        coalesce(sum(intakes) FILTER (WHERE outcome = 'not_taken'), 0)::bigint AS not_taken
    FROM (
        SELECT
            outcome,
            count(*) AS intakes
        FROM intakes
        WHERE run_id = r.id
        GROUP BY outcome
    ) AS counted
) AS i
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(documents_taken), 0) AS parts,
        coalesce(bool_or(status <> 'listed'), FALSE) AS for_readers
    FROM listed_files
    WHERE run_id = r.id
) AS p
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(jobs) FILTER (WHERE status = 'queued'), 0)::bigint AS queued,
        coalesce(sum(jobs) FILTER (WHERE status = 'running'), 0)::bigint AS running,
        coalesce(sum(jobs) FILTER (WHERE status = 'waiting'), 0)::bigint AS waiting,
        coalesce(sum(jobs) FILTER (WHERE status = 'synthesizing'), 0)::bigint AS synthesizing,
        coalesce(sum(jobs) FILTER (WHERE status = 'paused'), 0)::bigint AS paused,
        coalesce(sum(jobs) FILTER (WHERE status = 'succeeded'), 0)::bigint AS succeeded,
        coalesce(sum(jobs) FILTER (WHERE status = 'partial'), 0)::bigint AS partial,
        coalesce(sum(jobs) FILTER (WHERE status = 'failed'), 0)::bigint AS failed,
        coalesce(sum(jobs) FILTER (WHERE status = 'quarantined'), 0)::bigint AS quarantined,
        coalesce(sum(jobs) FILTER (WHERE status = 'cancelled'), 0)::bigint AS cancelled
    FROM (
        SELECT
            status,
            count(*) AS jobs
        FROM jobs
        WHERE run_id = r.id
        GROUP BY status
    ) AS counted
) AS j
CROSS JOIN LATERAL (
    SELECT count(*) AS reused
    FROM jobs
    WHERE run_id = r.id AND reused_from IS NOT NULL AND status = 'succeeded'
) AS u;
