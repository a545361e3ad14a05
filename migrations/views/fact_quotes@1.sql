-- Every fact with its quote, its place in the document (page, place and boxes where the document has
-- pages, slides, sheets or sections), and where the document came from. Values in lists have a
-- row_index, and parent names the object in a list that they are a member of.
CREATE VIEW fact_quotes AS
SELECT
    run.name AS run,
    i.source,
    j.analysis_type,
    f.item,
    f.value,
    f.corrected_value,
    f.final_value,
    f.verdict,
    f.number,
    f.currency,
    f.unit,
    f.date,
    f.confidence,
    f.quote,
    f.start_char,
    f.end_char,
    f.grounded,
    f.grounding,
    f.value_in_quote,
    f.page,
    f.place,
    f.boxes,
    f.path,
    f.parent,
    f.row_index,
    j.document_id,
    f.job_id,
    f.accepted
FROM facts AS f
INNER JOIN jobs AS j ON j.id = f.job_id
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id
WHERE NOT EXISTS (SELECT FROM experiments AS e WHERE e.run_id = j.run_id);
