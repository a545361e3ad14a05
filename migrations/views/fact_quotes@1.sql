-- Every fact with its quote, its place in the document, and where the document came from.
CREATE VIEW fact_quotes AS
SELECT
    run.name AS run,
    i.source,
    j.analysis_type,
    f.path,
    f.text,
    f.number,
    f.confidence,
    f.quote,
    f.start_char,
    f.end_char,
    f.grounded,
    j.document_id,
    f.job_id
FROM facts AS f
INNER JOIN jobs AS j ON j.id = f.job_id
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id;
