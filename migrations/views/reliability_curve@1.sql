CREATE VIEW reliability_curve AS
SELECT
    analysis_type,
    part,
    provider,
    model,
    least(floor(confidence * 10), 9) / 10 AS claimed_from,
    count(*) AS claims,
    round(avg(confidence)::numeric, 3) AS mean_claimed,
    round(avg(is_right::integer), 3) AS share_right
FROM judged_claims
GROUP BY 1, 2, 3, 4, 5;
