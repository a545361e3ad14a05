"""The newest answers of a run or a table, and which of them are due for another one."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from psycopg import Connection

from chordwise.domain.states import JobStatus
from chordwise.relations.relation import Row, Values, rows

_FAILED = (JobStatus.FAILED, JobStatus.QUARANTINED)
_ALIKE = "analysis_type, options_hash, asked, provider, model, prompt_version, error_code, is_due"
# The newest job for each document and analysis type, preferably with an answer.
_NEWEST = """SELECT newest.*, {is_due} AND NOT EXISTS (
    SELECT FROM jobs AS other INNER JOIN runs AS again ON again.id = other.run_id
    WHERE other.document_id = newest.document_id AND other.analysis_type = newest.analysis_type
        AND other.options_hash = ANY(%(today)s) AND other.status <> ALL(%(failed)s)
        AND other.status <> 'cancelled' {of_others}
) AS is_due
FROM (
    SELECT DISTINCT ON (j.document_id, j.analysis_type)
        j.id AS job_id, j.document_id, j.analysis_type, j.options_hash, j.model AS asked, j.status,
        j.error_code, r.id AS result_id, r.provider, r.model, r.prompt_version,
        coalesce(
            coalesce(r.corrected_output, r.output) ->> 'primary_label',
            coalesce(r.corrected_output, r.output) ->> 'label'
        ) AS label
    FROM jobs AS j
    INNER JOIN runs AS run ON run.id = j.run_id
    LEFT JOIN results AS r ON r.job_id = j.id
    WHERE {in_scope} {of_jobs}
    ORDER BY j.document_id, j.analysis_type, {has_none} j.id DESC
) AS newest"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A selection of the newest answers: those of a run, or of all runs saved under a name.

    An answer is due if it answers another question than the current ones, whose hashes by analysis
    type are `hashes`, and if no job (under that name) answers the current question. With
    `of_failed`, jobs without a complete answer are selected instead, whatever their question.
    """

    hashes: Mapping[str, str]
    run_id: uuid.UUID | None = None
    saved_as: str | None = None
    of_failed: bool = False

    @property
    def values(self) -> Values:
        """The values of all statements."""
        failed = [*_FAILED, JobStatus.PARTIAL] if self.of_failed else _FAILED
        return {
            "types": list(map(str, self.hashes)),
            "today": list(self.hashes.values()),
            "failed": list(map(str, failed)),
            "run_id": self.run_id,
            "saved_as": self.saved_as,
        }

    @property
    def in_scope(self) -> str:
        """The condition for a job `j` of a run `run`."""
        of_table = (
            "run.saved_as IS NULL" if self.saved_as is None else "run.saved_as = %(saved_as)s"
        )
        of_runs = "j.run_id = %(run_id)s" if self.run_id else of_table
        return f"{of_runs} AND j.analysis_type = ANY(%(types)s)"

    def newest(self, *, of_documents: bool = False) -> str:
        """Return the statement for the newest answers, if need be only of some `document_ids`."""
        is_stale = "newest.result_id IS NOT NULL AND newest.options_hash <> ALL(%(today)s)"
        # The condition on the other jobs uses the index on documents instead of reading all jobs.
        about = " AND {}.document_id = ANY(%(document_ids)s)" if of_documents else ""
        saved = "" if self.saved_as is None else " AND again.saved_as = %(saved_as)s"
        return _NEWEST.format(
            is_due="newest.status = ANY(%(failed)s)" if self.of_failed else is_stale,
            of_others=f"{saved}{about.format('other')}",
            in_scope=self.in_scope,
            of_jobs=about.format("j"),
            has_none="" if self.of_failed else "r.id IS NULL,",
        )


def groups(connection: Connection, of: Renewal) -> Sequence[Row]:
    """Return the newest answers, counted by question, model, template, error and being due.

    `asked` is the requested model; `model` is the one that answered, null without an answer. The
    `options` are those of one of the answers.
    """
    statement = f"""SELECT alike.*, j.options
FROM (
    SELECT {_ALIKE}, count(*) AS count, max(job_id::text)::uuid AS job_id
    FROM ({of.newest()}) AS newest
    GROUP BY {_ALIKE}
) AS alike
INNER JOIN jobs AS j ON j.id = alike.job_id
ORDER BY {", ".join(f"alike.{name}" for name in _ALIKE.split(", "))}"""
    return rows(connection, statement, of.values)


def documents_behind(
    connection: Connection, of: Renewal, after: uuid.UUID | None, limit: int
) -> list[uuid.UUID]:
    """Return the next documents that have jobs, in the order of their ids."""
    statement = f"""SELECT DISTINCT j.document_id
FROM jobs AS j INNER JOIN runs AS run ON run.id = j.run_id
WHERE {of.in_scope} {"AND j.document_id > %(after)s" if after else ""}
ORDER BY j.document_id LIMIT {limit:d}"""
    return [
        row["document_id"] for row in rows(connection, statement, {**of.values, "after": after})
    ]


def due_answers(
    connection: Connection, of: Renewal, document_ids: Collection[uuid.UUID]
) -> Sequence[Row]:
    """Return the due answers of these documents, the newest job of a document last.

    A row has the document, the analysis type, the job and its source.
    """
    statement = f"""SELECT newest.document_id, newest.analysis_type, newest.job_id, i.source
FROM ({of.newest(of_documents=True)}) AS newest
INNER JOIN jobs AS j ON j.id = newest.job_id
INNER JOIN intakes AS i ON i.id = j.intake_id
WHERE newest.is_due
ORDER BY newest.document_id, newest.job_id"""
    return rows(connection, statement, {**of.values, "document_ids": list(document_ids)})


def due_strata(connection: Connection, of: Renewal, limit: int) -> Sequence[Row]:
    """Return the first `limit` documents of each stratum in the order of a hash, with its `size`.

    The documents of a stratum have the same analysis types due, with the same labels.
    """
    statement = f"""SELECT document_id, stratum, size, place
FROM (
    SELECT document_id, stratum, count(*) OVER (PARTITION BY stratum) AS size,
        row_number() OVER (PARTITION BY stratum ORDER BY md5(document_id::text)) AS place
    FROM (
        SELECT document_id, string_agg(
            analysis_type || ' ' || coalesce(label, ''), '; '
            ORDER BY analysis_type || ' ' || coalesce(label, '')
        ) AS stratum
        FROM ({of.newest()}) AS newest WHERE is_due
        GROUP BY document_id
    ) AS of_document
) AS ranked
WHERE place <= {limit:d}
ORDER BY stratum, place"""
    return rows(connection, statement, of.values)


def transcribed_by_others(connection: Connection, of: Renewal, reader: str) -> int:
    """Return how many documents have pages that were read by another model than `reader`."""
    statement = f"""SELECT count(DISTINCT newest.document_id) AS documents
FROM ({of.newest()}) AS newest INNER JOIN documents AS d ON d.id = newest.document_id
WHERE d.transcribed_by <> %(reader)s"""
    (row,) = rows(connection, statement, {**of.values, "reader": reader})
    return int(row["documents"])
