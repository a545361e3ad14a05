"""Experiments, newest first, their variants, and the outcomes of their answers."""

from __future__ import annotations

from chordwise.relations.relation import Relation

EXPERIMENTS = Relation(
    query="""SELECT
    e.id, e.name, e.profile, e.outcome, e.risk, e.paired, e.control, e.created_at, e.concluded_at,
    e.promoted, b.cap_usd AS budget_usd, b.spent_usd
FROM experiments AS e LEFT JOIN budgets AS b ON b.scope = 'run:' || e.run_id""",
    filters={"name": "e.name = %(name)s"},
    order="e.id DESC",
)
VARIANTS = Relation(
    query="SELECT name, changes, options, stopped_at, stopped_because FROM experiment_variants",
    filters={"experiment_id": "experiment_id = %(experiment_id)s"},
    order="position",
)
ANSWERS = Relation(
    # Unfinished jobs have no outcomes; a cost or a latency is null if unknown, or if it was reused.
    query="""SELECT
    variant, document_id, job_id, analysis_type, finished_at,
    CASE WHEN finished_at IS NOT NULL THEN valid::integer::double precision END AS valid,
    grounded, quality, cost_usd::double precision AS cost,
    latency_ms / 1000.0::double precision AS latency
FROM experiment_answers""",
    filters={"experiment_id": "experiment_id = %(experiment_id)s"},
)
