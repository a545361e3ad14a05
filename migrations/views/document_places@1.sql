CREATE VIEW document_places AS
SELECT
    d.id AS document_id,
    d.source,
    p.kind,
    p.number,
    p.label,
    p.start_char,
    p.end_char,
    p.width,
    p.height
FROM documents AS d
CROSS JOIN LATERAL jsonb_to_recordset(d.places) AS p (
    kind text,
    number integer,
    label text,
    start_char integer,
    end_char integer,
    width double precision,
    height double precision
);
