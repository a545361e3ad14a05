"""Jobs: those of a run as they are listed, and those about a document with their questions."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from psycopg import Connection

from chordwise.domain.identifiers import id_in
from chordwise.errors import UsageError
from chordwise.relations.relation import Relation, Row
from chordwise.relations.results import RESULTS

JOBS_OF_RUNS = Relation(
    query="""SELECT
    j.id AS job_id, j.document_id, i.source, j.analysis_type, j.model, j.status,
    j.chunk_count AS chunks,
    (SELECT count(*) FROM chunks AS c WHERE c.job_id = j.id AND c.status = 'succeeded')
        AS chunks_done,
    r.confidence, r.coverage, j.finished_at,
    j.reused_from IS NOT NULL AND j.status = 'succeeded' AS reused
FROM jobs AS j
INNER JOIN intakes AS i ON i.id = j.intake_id
LEFT JOIN results AS r ON r.job_id = j.id""",
    filters={"run_id": "j.run_id = %(run_id)s", "after": "j.id > %(after)s"},
    order="j.id",
)
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
MAX_NAMED = 100
_MINUTE_MILLISECONDS = 60_000


def jobs_of_run(
    connection: Connection, run_id: uuid.UUID, limit: int, after: uuid.UUID | None = None
) -> Sequence[Row]:
    """Return the jobs of a run in the order of their intake, starting after `after`."""
    # Ids ascend with the clock and a job is created after its run, so the primary key limits the
    # scan. The minute allows for a slow clock of the machine that takes in.
    first = uuid.UUID(int=run_id.int - (_MINUTE_MILLISECONDS << 80))
    return JOBS_OF_RUNS.read(connection, {"run_id": run_id, "after": after or first}, limit=limit)


def find(connection: Connection, name: str) -> Row:
    """Return the job with this id, or the newest job about the document with this name.

    The name is a substring of the document's source or title, or its id. A job with a result takes
    precedence over newer jobs without.

    Raises:
        UsageError: There is none, or several documents match.
    """
    job_id = id_in(name)
    jobs = JOBS.read(connection, {"job_id": job_id}) if job_id else []
    jobs = jobs or JOBS.read(connection, {"document": name}, order=NEWEST_ANSWER, limit=MAX_NAMED)
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
