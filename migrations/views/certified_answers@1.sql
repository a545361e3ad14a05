-- The newest certification of each field or label, for each certified run or profile: which answers
-- may be accepted without review.
-- error_bound holds with probability 1 - risk for all fields and labels of the run or profile
-- together.
CREATE VIEW certified_answers AS
SELECT DISTINCT ON (run, profile, analysis_type, name)
    run,
    profile,
    analysis_type,
    name,
    verdict,
    accepted,
    population,
    error_bound,
    max_error,
    risk,
    checks,
    wrong,
    more_checks,
    must_review,
    accept_from,
    certified_at
FROM certifications
ORDER BY run, profile, analysis_type, name, certified_at DESC, id DESC;
