"""Questions over answer tables: planned by a model or a grammar, computed by the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from psycopg import Connection

from chordwise.domain import plans, prompts
from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType, Stage
from chordwise.domain.json_values import JsonObject
from chordwise.domain.plans import CatalogueTable, Plan, Proposal
from chordwise.errors import InvalidAnswerError, UsageError
from chordwise.llm.model import ChatModel, CompletionRequest
from chordwise.pipeline.asking.check import RecordCheck
from chordwise.pipeline.asking.question import content_of
from chordwise.pipeline.models.model_client import CallContext
from chordwise.pipeline.runs import user_sql
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.prompts import library
from chordwise.relations import counts
from chordwise.relations.counts import Count, CountedTable
from chordwise.relations.relation import Row
from chordwise.storage import answer_tables
from chordwise.storage.answer_tables import SCHEMA, AnswerTable

_OUTPUT_TOKENS = 2_000
_MAX_QUESTION = 2_000


class NeverAskedError(UsageError):
    """No column has what a question is about; `missing` names it, `table` is the nearest table."""

    def __init__(self, table: str, missing: Sequence[str], cost: str = "") -> None:
        names = " and ".join(f"“{name}”" for name in missing)
        super().__init__(
            f"The documents of {table} were never asked for {names}.",
            f"Ask for it: chordwise ask … --analyze{cost}, or --items with {', '.join(missing)}.",
        )
        self.table = table
        self.missing = tuple(missing)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredQuestion:
    """The answer to a question: the count of its plan, a sentence if there is one, and quotes."""

    count: Count
    sentence: str
    quotes: Sequence[Row]


def plan(
    question: str,
    tables: Sequence[CatalogueTable],
    model: ChatModel | None = None,
    record_check: RecordCheck = lambda *_: None,
) -> Plan:
    """Return the checked plan of a question; one in the words of the grammar needs no model.

    Raises:
        NeverAskedError: No column has what the question is about.
        UsageError: The question fits no table or several columns, or needs a language model.
        ModelError: The model returned no usable plan.
    """
    if len(question) > _MAX_QUESTION:
        raise UsageError(f"The question is longer than {_MAX_QUESTION:,} characters.")
    if model is None:
        parsed = plans.parse(question, tables)
    else:
        try:
            parsed = plans.parse(question, tables)
            plans.check(parsed, tables)
        except UsageError as error:
            of_grammar = error
        else:
            return parsed
        try:
            parsed = _proposed(question, tables, model, record_check)
        except InvalidAnswerError:
            if plans.is_in_grammar(question):
                raise of_grammar from None
            raise
    plans.check(parsed, tables)
    return parsed


def _proposed(
    question: str,
    tables: Sequence[CatalogueTable],
    model: ChatModel,
    record_check: RecordCheck,
) -> Plan:
    def read(answer: JsonObject) -> Proposal:
        proposal = plans.proposal_from(answer)
        if not (proposal.missing or proposal.ambiguous):
            try:
                plans.check(proposal.plan, tables)
            except UsageError as error:
                raise InvalidAnswerError(f"{error.what} {error.hint}") from error
        return proposal

    try:
        proposal = content_of(model, request_for(question, tables), read, record_check)
    except InvalidAnswerError as error:
        raise error.__cause__ if isinstance(error.__cause__, UsageError) else error from None
    if proposal.missing:
        raise NeverAskedError(proposal.plan.table, proposal.missing)
    for words, columns in proposal.ambiguous:
        raise UsageError(
            f"“{words}” can be {' or '.join(columns)}.", "Ask again with one of these names."
        )
    return proposal.plan


def request_for(question: str, tables: Sequence[CatalogueTable]) -> CompletionRequest:
    """Return the request for a plan."""
    template = library.latest(library.PLAN)
    schema = plans.schema_for(tables)
    prompt = prompts.render_plan(template, schema, plans.catalogue_in_words(tables), question)
    return CompletionRequest(
        task=AnalysisTask(analysis_type=AnalysisType.EXTRACTION, stage=Stage.PLAN),
        system=prompt.system,
        user=prompt.user,
        schema=schema,
        schema_name=library.PLAN,
        prompt_version=template.version,
        max_output_tokens=_OUTPUT_TOKENS,
    )


def ask(
    context: ReadingContext,
    question: str,
    table: str = "",
    model: str = "",
    *,
    paths: Sequence[str] = (),
    max_quotes: int = 0,
) -> AnsweredQuestion:
    """Plan a question over a table, or over all, and compute it as the reader.

    With `paths`, which are absolute, only the documents there are read.
    Without `model`, that of the settings plans; the built-in one knows only the grammar. The call
    is recorded in the ledger. At most `max_quotes` quotes are returned.

    Raises:
        NeverAskedError: No column has what the question is about.
        UsageError: The question fits no table or several columns, or needs a language model.
        ModelError: The model returned no usable plan.
    """
    with context.database.read() as session:
        stored = [answer_tables.get(session, table)] if table else answer_tables.gather(session)
    if not stored:
        raise UsageError(
            "There are no answer tables yet.", "Analyze with --profile NAME or --save-as NAME."
        )
    with (
        user_sql.reader(context.settings.require_sql_url()) as reader,
        _planner(context, model or context.settings.model) as (asker, record_check),
    ):
        tables = [counted.catalogue(reader if asker else None) for counted in tables_of(stored)]
        reader.rollback()  # no transaction waits for the model
        planned = replace(plan(question, tables, asker, record_check), paths=tuple(paths))
        return compute(reader, stored, planned, max_quotes)


@contextmanager
def _planner(context: ReadingContext, name: str) -> Iterator[tuple[ChatModel | None, RecordCheck]]:
    """Yield a language model with a ledger; `None` if the model of this name is built in."""
    if not context.models.open(name).profile.understands_language:
        yield None, lambda *_: None
        return
    ledger = context.ledgers()()
    try:
        yield (
            context.models.open(name, CallContext(ledger=ledger, cache=ledger.cache)),
            ledger.check,
        )
    finally:
        ledger.flush()


def compute(
    connection: Connection, stored: Sequence[AnswerTable], planned: Plan, max_quotes: int = 0
) -> AnsweredQuestion:
    """Compute a checked plan as the reader, with at most `max_quotes` quotes."""
    table = next(table for table in tables_of(stored) if table.name == planned.table)
    counted = table.count(connection, planned)
    result = str(counted.rows[0][-1]) if counted.rows else "0"
    if planned.group_by or planned.measure is not plans.Aggregate.COUNT:
        planned = replace(planned, sentence="")
    sentence = plans.sentence_of(planned, result, counted.documents - len(counted.unread))
    quotes = table.quotes(connection, counted, max_quotes) if max_quotes else ()
    return AnsweredQuestion(count=counted, sentence=sentence, quotes=quotes)


def tables_of(stored: Sequence[AnswerTable]) -> Sequence[CountedTable]:
    """Return all tables over which questions can be asked."""
    return [table for saved in stored for table in counts.tables_of(saved)]


def members(answer: AnsweredQuestion) -> dict[str, object]:
    """Return the members of the JSON document."""
    count = answer.count
    return {
        "sentence": answer.sentence or None,
        "columns": count.columns,
        "rows": [dict(zip(count.columns, row, strict=True)) for row in count.rows],
        "is_full": count.is_full,
        "documents": {
            "all": count.documents,
            "read": count.documents - len(count.unread),
            "matching": len(count.matching),
            "supported": count.supported,
            "to_check": len(count.matching) - count.supported,
            "at_least": count.low,
            "at_most": count.high,
            "checked_documents": count.checks,
            "more_checks": count.more_checks,
            "margin": count.margin,
        },
        "unread": count.unread,
        "outdated": count.outdated,
        "notes": count.notes,
        "silent": count.silent,
        "unsure": count.unsure,
        "plan": plans.in_words(count.plan, SCHEMA),
        "statement": count.statement,
        "quotes": answer.quotes,
    }
