"""Learned examples: answers that people confirmed or corrected, as shown in prompts."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Sequence

from sqlalchemy import ForeignKey, select, text
from sqlalchemy.dialects.postgresql import ARRAY, UUID
from sqlalchemy.orm import Mapped, Session, mapped_column

from chordwise.domain.analysis_tasks import Example, examples_from
from chordwise.domain.json_values import JsonObject
from chordwise.domain.learning.learned_examples import LearnedExample as LearnedExampleValue
from chordwise.storage.record import CreatedAt, Record, in_ids


class LearnedExample(Record):
    """An answer that people confirmed or corrected, with the text shown beside it.

    Rows are never changed: other feedback, or another text, creates the next `version`.
    """

    __tablename__ = "learned_examples"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    document_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("documents.id"), index=True)
    analysis_type: Mapped[str]
    version: Mapped[int]
    feedback_ids: Mapped[list[uuid.UUID]] = mapped_column(ARRAY(UUID(as_uuid=True)))
    text: Mapped[str]
    answer: Mapped[JsonObject]
    created_at: Mapped[CreatedAt]


OF_JOB = """CASE WHEN j.examples IS NOT NULL THEN (
            SELECT json_agg(json_build_object(
                'id', e.id, 'type', e.analysis_type, 'text', e.text, 'answer', e.answer
            ) ORDER BY shown.position)
            FROM jsonb_array_elements_text(j.examples) WITH ORDINALITY AS shown (id, position)
            JOIN learned_examples e ON e.id = CAST(shown.id AS uuid)
        ) END"""
"""The SQL for the examples of a job `j` as a list of objects; null if it has none."""


def store(session: Session, examples: Collection[LearnedExampleValue]) -> None:
    """Store new examples, except those whose document was pruned meanwhile."""
    by_id = {value.id: value for value in examples}
    if not by_id:
        return
    known = select(LearnedExample.id).where(in_ids(LearnedExample.id, by_id))
    for id_ in session.scalars(known):
        del by_id[id_]
    rows = [
        {
            "id": id_,
            "document_id": value.document_id,
            "analysis_type": value.example.analysis_type,
            "feedback_ids": value.feedback_ids,
            "text": value.example.text,
            "answer": value.example.answer,
        }
        for id_, value in sorted(by_id.items())
    ]
    if rows:
        session.execute(_INSERT, {"rows": json.dumps(rows, default=str)})


_INSERT = text("""
    INSERT INTO learned_examples
        (id, document_id, analysis_type, version, feedback_ids, text, answer)
    SELECT new.id, d.id, new.analysis_type, 1 + (
            SELECT coalesce(max(e.version), 0) FROM learned_examples e
            WHERE e.document_id = d.id AND e.analysis_type = new.analysis_type
        ), new.feedback_ids, new.text, new.answer
    FROM json_populate_recordset(NULL::learned_examples, CAST(:rows AS json)) AS new
    JOIN documents d ON d.id = new.document_id
    FOR KEY SHARE OF d
    ON CONFLICT DO NOTHING""")


def named(session: Session, ids: Sequence[uuid.UUID]) -> tuple[Example, ...]:
    """Return the examples with these ids, in this order; those of pruned documents are missing."""
    stored = session.scalars(select(LearnedExample).where(in_ids(LearnedExample.id, ids)))
    rows = {row.id: row for row in stored}
    return examples_from(
        {"id": str(row.id), "type": row.analysis_type, "text": row.text, "answer": row.answer}
        for id_ in ids
        if (row := rows.get(id_)) is not None
    )
