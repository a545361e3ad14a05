"""The learned examples of a run, from the feedback on its profile; they are read once."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from psycopg.types.json import Jsonb
from sqlalchemy import select
from sqlalchemy.orm import Session

from chordwise.domain.analysis_tasks import (
    AnalysisOptions,
    AnalysisType,
    options_from,
    options_to_json,
    question_of,
)
from chordwise.domain.chunking import TextBudget
from chordwise.domain.learning.learned_examples import (
    ExampleIndex,
    JudgedAnswer,
    LearnedExample,
    example_from,
    is_held_out,
)
from chordwise.errors import ConfigurationError
from chordwise.llm.model import EXTRACTIVE
from chordwise.pipeline.asking.question import CHUNK_TOKENS
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.runtime.context import DATABASE_TIMEOUT, ReadingContext
from chordwise.relations.judgments import JUDGED
from chordwise.relations.relation import Row, rows
from chordwise.settings import Settings
from chordwise.storage import feedback as stored_feedback
from chordwise.storage.database import driver
from chordwise.storage.documents import Document
from chordwise.storage.feedback import Feedback
from chordwise.storage.record import in_ids

_MAX_DOCUMENTS = 1_000
_AT_ONCE = 50
_CONTEXT_SHARE = 4
"""Examples take at most a quarter of the tokens that a text may have."""

Examples = Mapping[AnalysisType, ExampleIndex]


def of_run(
    context: ReadingContext, options: RunOptions, budgets: Mapping[AnalysisType, TextBudget]
) -> Examples:
    """Return the examples that a run may show, by analysis type; empty if it is to show none.

    They come from answers that people approved or corrected: of the same profile, to the same
    question, asked with the same variant of templates. Held-out documents are excluded, and so are
    answers whose text would be sent to a provider that has not received it before. `budgets` are
    the known limits of the text of a chunk. A suite uses no examples.
    """
    settings, prompts = context.settings, context.settings.prompts
    is_wanted = options.profile and options.learned_examples and prompts.learned_examples
    if not is_wanted or options.is_suite or not _addresses(settings, options.model):
        return {}
    indexes: dict[AnalysisType, ExampleIndex] = {}
    for kind in options.types:
        known = TextBudget(settings.pipeline.chunk_tokens or CHUNK_TOKENS)
        room = budgets.get(kind, known).max_tokens // _CONTEXT_SHARE
        max_tokens = min(prompts.learned_example_tokens, room)
        examples = list(_learned(context, options, kind, max_tokens))
        if examples:
            indexes[kind] = ExampleIndex(examples, prompts.learned_examples, max_tokens)
    return indexes


def _learned(
    context: ReadingContext, options: RunOptions, kind: AnalysisType, max_tokens: int
) -> Iterator[LearnedExample]:
    """Yield at most one example per document, from its newest answer that yields one.

    The length of an excerpt in characters is limited to `max_tokens`. No transaction is open while
    examples are created.
    """
    by_document: dict[uuid.UUID, list[Row]] = defaultdict(list)
    for result in context.database.commit(
        lambda session: list(_usable(session, context.settings, options, kind)), DATABASE_TIMEOUT
    ):
        by_document[result["document_id"]].append(result)
    ids = list(by_document)
    for batch in (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE)):
        texts = select(Document.id, Document.text).where(in_ids(Document.id, batch))
        for attempt in context.database.attempts(DATABASE_TIMEOUT):
            with attempt as session:
                feedback = stored_feedback.of_documents(session, batch)
                documents = session.execute(texts).all()
        for document_id, text in documents:
            about_it = [row for row in feedback if row.document_id == document_id]
            candidates = (
                example_from(_judged_answer(result, text, kind, about_it), max_tokens)
                for result in by_document[document_id]
            )
            if (example := next(filter(None, candidates), None)) is not None:
                yield example


def _judged_answer(
    result: Row, text: str, kind: AnalysisType, feedback: Sequence[Feedback]
) -> JudgedAnswer:
    question = question_of(result["options"])
    about_it = [row for row in feedback if (row.analysis_type, row.question) == (kind, question)]
    return JudgedAnswer(
        document_id=result["document_id"],
        sha256=result["sha256"],
        text=text,
        analysis_type=kind,
        options=options_from(result["options"]),
        output=result["output"],
        remarks=[stored_feedback.remark(row) for row in about_it],
        feedback_ids=[row.id for row in about_it],
    )


def _usable(
    session: Session, settings: Settings, options: RunOptions, kind: AnalysisType
) -> Iterator[Row]:
    question = question_of(options_to_json(options.analysis_of(kind)))
    addresses = _addresses(settings, options.model)
    variants = _variants(options.analysis)
    values = {"profile": options.profile, "type": kind, "max": _MAX_DOCUMENTS}
    for result in rows(driver(session), JUDGED, {**values, "question": Jsonb(question)}):
        is_same = question_of(result["options"]) == question
        is_same = is_same and _variants(options_from(result["options"])) == variants
        may_go = any(addresses <= _addresses(settings, model) for model in result["models"])
        if is_same and may_go and not is_held_out(result["sha256"]):
            yield result


def _variants(options: AnalysisOptions) -> set[str]:
    return {template.variant for template in options.templates}


def _addresses(settings: Settings, model: str) -> frozenset[tuple[str, str]]:
    """Return the provider and address of each language model that a run with `model` asks.

    Empty for the built-in model, and for a model that is no longer configured.
    """
    try:
        models = [settings.model_named(name) for name in settings.selected_names(model)]
    except ConfigurationError:
        return frozenset()
    return frozenset(
        (model.provider, model.base_url) for model in models if model.provider != EXTRACTIVE
    )
