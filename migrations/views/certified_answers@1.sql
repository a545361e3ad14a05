CREATE VIEW certified_answers AS
SELECT DISTINCT ON (run, profile, analysis_type, name)
    run,
    profile,
    analysis_type,
    name,
    regexp_replace(name, ', not mentioned$', '') AS field,
    verdict,
    accepted,
    acceptable,
    population,
    error_bound,
    max_error,
    risk,
    checks,
    wrong,
    more_checks,
    expected_checks,
    expected_free,
    must_review,
    accept_from,
    certified_at,
    to_check
FROM certifications
ORDER BY run, profile, analysis_type, name, certified_at DESC, id DESC;
