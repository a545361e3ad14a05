"""The account of a job: its document, chunks, calls, facts and feedback, a relation each."""

from __future__ import annotations

from psycopg import Connection
from sqlalchemy.orm import Session

from chordwise.domain import grounding
from chordwise.domain.analysis_tasks import AnalysisType, question_of
from chordwise.domain.identifiers import id_in
from chordwise.domain.states import CritiqueOutcome
from chordwise.errors import UsageError
from chordwise.relations.relation import Relation, Row, rows
from chordwise.relations.results import FACTS, RESULTS
from chordwise.storage import feedback as stored_feedback
from chordwise.storage.database import driver

JOBS = Relation(
    query="""SELECT
    j.id AS job_id, j.reused_from, j.run_id, run.name AS run, i.source, j.document_id,
    j.analysis_type, j.model, j.options, j.status, j.error_message, j.hint, r.confidence,
    r.needs_review, j.created_at
FROM jobs AS j
INNER JOIN runs AS run ON run.id = j.run_id
INNER JOIN intakes AS i ON i.id = j.intake_id
INNER JOIN documents AS d ON d.id = j.document_id
LEFT JOIN results AS r ON r.job_id = j.id""",
    filters={
        "job_id": "j.id = %(job_id)s",
        "document_id": "j.document_id = %(document_id)s",
        "document": RESULTS.filters["document"],
    },
    order="j.id DESC",
)
NEWEST_ANSWER = "r.id IS NULL, j.id DESC"
"""The order of jobs in which those with a result come first."""
_MAX_JOBS = 100
# A call of the run with the source of the document transcribed its pages.
_SECTIONS = {
    "document": """
        SELECT id, source, title, media_type, character_count, flags, created_at
        FROM documents WHERE id = %(document_id)s""",
    "result": f"{RESULTS.query} WHERE r.job_id = %(job_id)s",
    "chunks": "SELECT * FROM chunks WHERE job_id = %(job_id)s ORDER BY position",
    "calls": """
        SELECT calls.*, chunks.position AS chunk, coalesce(
            calls.error_message, CASE WHEN calls.valid THEN 'valid' ELSE 'not valid' END
        ) AS outcome
        FROM model_calls AS calls
        LEFT JOIN chunks ON chunks.id = calls.chunk_id
        WHERE calls.job_id = %(job_id)s
            OR (calls.run_id = %(run_id)s AND calls.source = %(source)s)
        ORDER BY calls.id""",
    "facts": f"{FACTS.query} WHERE f.job_id = %(job_id)s ORDER BY f.verdict IS NULL, f.id",
    "remarks": """
        SELECT * FROM feedback WHERE id = ANY(%(remark_ids)s) ORDER BY created_at DESC, id DESC""",
    "examples": """
        SELECT e.*, d.source
        FROM jobs AS j
        CROSS JOIN jsonb_array_elements_text(j.examples) WITH ORDINALITY AS shown (id, position)
        INNER JOIN learned_examples AS e ON e.id = shown.id::uuid
        INNER JOIN documents AS d ON d.id = e.document_id
        WHERE j.id = %(job_id)s
        ORDER BY shown.position""",
    "jobs": JOBS.statement({"document_id": True}, limit=_MAX_JOBS),
}


def find(connection: Connection, name: str) -> Row:
    """Return the job with this id, or the newest job about the document with this name.

    The name is a substring of the document's source or title, or its id. A job with a result takes
    precedence over newer jobs without.

    Raises:
        UsageError: There is none, or several documents match.
    """
    job_id = id_in(name)
    jobs = JOBS.read(connection, {"job_id": job_id}) if job_id else []
    jobs = jobs or JOBS.read(connection, {"document": name}, order=NEWEST_ANSWER, limit=_MAX_JOBS)
    if not jobs:
        raise UsageError(
            f"There is no job or document “{name}”.",
            "`chordwise results` and `chordwise runs RUN --json` have the ids of jobs.",
        )
    sources = {job["document_id"]: job["source"] for job in jobs}
    if len(sources) > 1:
        names = ", ".join(sorted(sources.values())[:5])
        raise UsageError(f"{len(sources)} documents match: {names}.", "Give a longer name.")
    return jobs[0]


def explain(session: Session, job: Row) -> Row:
    """Return a row of `JOBS` with its document, its result, if any, and all rows about it.

    Facts with a verdict come first, feedback and jobs newest first. A job that reused an answer has
    neither chunks nor calls; the job `reused_from` has them. `revised` are the paths that a
    revision changed; they are known only for a document of one chunk without corrections.
    """
    feedback = stored_feedback.of_documents(session, [job["document_id"]])
    kind, question = AnalysisType(job["analysis_type"]), question_of(job["options"])
    remark_ids = [remark.id for remark in stored_feedback.applicable(feedback, kind, question)]
    values = {**job, "remark_ids": remark_ids}
    sections = {name: rows(driver(session), query, values) for name, query in _SECTIONS.items()}
    costs = [call["cost_usd"] for call in sections["calls"]]
    result = next(iter(sections["result"]), None)
    return {
        **job,
        **sections,
        "document": sections["document"][0],
        "result": result,
        "revised": _revised(sections["chunks"], result),
        "cost_usd": sum(usd for usd in costs if usd is not None),
        "unpriced_calls": costs.count(None),
    }


def _revised(chunks: list[Row], result: Row | None) -> list[str]:
    if result is None or result["corrected"] or len(chunks) != 1 or not chunks[0]["answer"]:
        return []
    is_revised = (result["critique"] or {}).get("outcome") == CritiqueOutcome.REVISED
    return grounding.differences(chunks[0]["answer"], result["output"]) if is_revised else []
