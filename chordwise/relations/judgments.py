"""What judgments are made of: answers, measures that fell, and certificates."""

from __future__ import annotations

from chordwise.relations.relation import Relation
from chordwise.relations.results import FROM, RESULTS

LISTED = Relation(
    query=f"""SELECT
    r.id AS result_id, r.job_id, r.document_id, r.analysis_type, i.source, j.options,
    j.options_hash
{FROM}""",
    filters={**RESULTS.filters, "questions": "j.options::jsonb = ANY(%(questions)s)"},
    order="r.id",
)
ANSWERS = Relation(
    # The seconds and the dollars are those of an answer that was not reused; the dollars are
    # unknown if one call has no price.
    query=f"""SELECT
    r.id AS result_id, r.output, r.confidence, r.agreement, r.created_at,
    r.review_reason IS NOT NULL OR i.message IS NOT NULL AS needs_review,
    r.provider, r.model, r.prompt_version, d.sha256, j.examples IS NOT NULL AS saw_examples,
    CASE WHEN j.reused_from IS NULL
        THEN extract(epoch FROM j.finished_at - j.started_at)::double precision END AS seconds,
    (
        SELECT CASE WHEN count(*) = count(c.cost_usd) THEN sum(c.cost_usd)::double precision END
        FROM model_calls AS c WHERE c.job_id = r.job_id
    ) AS cost_usd
{FROM}""",
    filters={"result_ids": "r.id = ANY(%(result_ids)s)"},
    order="r.id",
)
UNANSWERED = Relation(
    # The last component of a name is compared here, and the whole name by the caller.
    query="""SELECT i.id, i.source, i.sha256,
    CASE WHEN i.document_id IS NULL THEN 'could not be read: ' || coalesce(i.message, i.outcome)
        WHEN j.status <> 'completed' THEN 'failed: ' || coalesce(j.error_message, j.status)
        ELSE 'no result of this type' END AS reason
FROM intakes AS i
LEFT JOIN jobs AS j ON j.intake_id = i.id AND j.analysis_type = %(analysis_type)s""",
    filters={
        "run_id": "i.run_id = %(run_id)s",
        "names": "(i.sha256 = ANY(%(names)s) OR regexp_replace(i.source, '^.*[/#]', '') "
        "= ANY(SELECT regexp_replace(name, '^.*[/#]', '') FROM unnest(%(names)s::text[]) AS name))",
    },
    order="i.id",
)
"""The items that a run found under some names, and why they have no answer."""
DROPS = Relation(
    # Of the measures over all labels or fields.
    query="""SELECT
    analysis_type, metric, value, earlier_value, earlier_at, change_low, change_high
FROM evaluation_changes""",
    filters={
        "evaluation_ids": "has_dropped AND label = '' AND evaluation_id = ANY(%(evaluation_ids)s)"
    },
    order="analysis_type, metric",
)
_OF_SCOPE = "run = %(run)s AND profile = %(profile)s"
_ONE_EACH = "SELECT DISTINCT ON (analysis_type, name) * FROM certifications"
IN_FORCE = Relation(
    query=f"{_ONE_EACH} WHERE {_OF_SCOPE}",
    order="analysis_type, name, certified_at DESC, id DESC",
)
"""The newest certification of each field and label of a scope."""
FIRST = Relation(
    query=f"""{_ONE_EACH}
WHERE seed = %(seed)s AND question = ANY(%(questions)s) AND verdict = 'certified'""",
    order="analysis_type, name, certified_at, id",
)
"""The first certificate of each field and label in an order of checks."""
SEEDS = Relation(
    query=f"""SELECT seed, min(certified_at) AS drawn_at FROM certifications
WHERE {_OF_SCOPE} AND question = ANY(%(questions)s) GROUP BY seed""",
    order="max(certified_at) DESC, seed",
)
"""The seeds for answers to some questions of a scope, the last used first."""
JUDGED = """WITH judged AS (
    SELECT document_id FROM feedback
    WHERE analysis_type = %(type)s AND question = %(question)s
    GROUP BY document_id ORDER BY max(created_at) DESC LIMIT %(max)s
)
SELECT d.id AS document_id, d.sha256, r.output, j.options,
    (SELECT array_agg(DISTINCT job.model) FROM jobs AS job WHERE job.document_id = d.id)
        AS models
FROM judged
INNER JOIN documents AS d ON d.id = judged.document_id
INNER JOIN results AS r ON r.document_id = d.id AND r.analysis_type = %(type)s
INNER JOIN jobs AS j ON j.id = r.job_id
INNER JOIN runs AS run ON run.id = j.run_id AND run.options ->> 'profile' = %(profile)s
WHERE coalesce(d.flags, '[]') = '[]' AND NOT EXISTS (
    SELECT FROM jobs AS other INNER JOIN runs AS suite ON suite.id = other.run_id
    WHERE other.document_id = d.id AND suite.options ->> 'is_suite' = 'true'
)
ORDER BY r.id DESC"""
"""Results of a profile about the documents with the latest feedback on a question, newest first.

They have the `models` asked about the document; none has suspicious passages or is of a suite.
"""
