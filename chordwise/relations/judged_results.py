"""Results that can be judged, with their claims, and what fell between evaluations."""

from __future__ import annotations

from chordwise.relations.relation import Relation
from chordwise.relations.results import FROM, RESULTS

LISTED = Relation(
    query=f"""SELECT
    r.id AS result_id, r.job_id, r.document_id, r.analysis_type, i.source, j.options,
    j.options_hash
{FROM}""",
    filters={**RESULTS.filters, "questions": "j.options = ANY(%(questions)s)"},
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
