"""The account of a job: its document, chunks, calls, facts and feedback, a relation each."""

from __future__ import annotations

from sqlalchemy.orm import Session

from chordwise.domain import grounding
from chordwise.domain.analysis_tasks import AnalysisType, question_of
from chordwise.domain.states import CritiqueOutcome
from chordwise.relations.jobs import JOBS, MAX_NAMED
from chordwise.relations.relation import Row, rows
from chordwise.relations.results import ABSENCES, CONTRADICTIONS, FACTS, RESULTS
from chordwise.storage import feedback as stored_feedback
from chordwise.storage.database import driver

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
    "contradictions": CONTRADICTIONS,
    "absences": ABSENCES,
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
    "jobs": JOBS.statement({"document_id": True}, limit=MAX_NAMED),
}


def explain(session: Session, job: Row) -> Row:
    """Return a row of `JOBS` with its document, its result, if any, and all rows about it.

    Facts with a verdict come first, feedback and jobs newest first. A job that reused an answer has
    neither chunks nor calls; the job `reused_from` has them. `revised` are the paths that a
    revision changed; they are known only for a document of one chunk without corrections.
    """
    feedback = stored_feedback.of_documents(session, [job["document_id"]])
    kind, question = AnalysisType(job["analysis_type"]), question_of(job["options"])
    remark_ids = [remark.id for remark in stored_feedback.applicable(feedback, kind, question)]
    values = {**job, "remark_ids": remark_ids, "field": None}
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
