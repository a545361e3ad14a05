"""The entities of a column of an answer table: grouped by rules, and corrected by decisions."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import LiteralString

from psycopg import sql
from sqlalchemy.orm import Session

from chordwise.domain import identifiers, json_values, schemas
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask, AnalysisType, Stage
from chordwise.domain.answer_tables import AnswerColumn
from chordwise.domain.entities import Action, Decision, entities, group
from chordwise.domain.entities.spellings import MAX_NAME, EntityKind, kind_of
from chordwise.domain.grounding import Source
from chordwise.domain.items import ColumnKind
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.errors import ModelError, UsageError
from chordwise.pipeline.asking import Question, ask
from chordwise.pipeline.models.model_client import CallContext
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.relations.relation import Row, rows
from chordwise.storage import answer_tables
from chordwise.storage import entities as stored
from chordwise.storage.answer_tables import SCHEMA, AnswerTable
from chordwise.storage.database import driver
from chordwise.storage.entities import EntityDecision, EntityValue


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedColumn:
    """A column whose values are grouped, as `contracts.parties`."""

    table: AnswerTable
    column: AnswerColumn

    @property
    def name(self) -> str:
        """The view and the column, as `contracts.parties`."""
        return self.column.grouped

    @property
    def kind(self) -> EntityKind:
        """What the values name."""
        return EntityKind(self.column.entity_kind)

    @property
    def view(self) -> str:
        """The view of the values and their entities."""
        return answer_tables.entity_views([self.column])[self.name]

    def read(self, session: Session, statement: LiteralString, **values: object) -> list[Row]:
        """Return the rows of a statement with the view as its only `{}`."""
        query = sql.SQL(statement).format(sql.Identifier(SCHEMA, self.view))
        return rows(driver(session), query.as_string(None), values)


_KINDS = {ColumnKind.TEXT: ColumnKind.ENTITY, ColumnKind.TEXTS: ColumnKind.ENTITIES}


def find(session: Session, name: str, kind: EntityKind | None = None) -> GroupedColumn:
    """Return a column of texts that can be grouped; `kind` is by default that of its name.

    Raises:
        UsageError: There is no such table, or no column of texts of this name.
    """
    view, _, column_name = name.removeprefix(f"{SCHEMA}.").partition(".")
    for table in answer_tables.gather(session):
        columns = answer_tables.columns_of(table)
        views = {"": table.name, **answer_tables.list_views(table.name, columns)}
        texts = {c.name: c for c in columns if views[c.rows] == view and c.kind in _KINDS}
        if column_name in texts:
            return _grouped(table, texts[column_name], f"{view}.{column_name}", kind)
        if view in views.values() and column_name:
            near = identifiers.nearest(column_name, texts)
            what = f"{view} has no column of texts named “{column_name}”."
            raise UsageError(what, f"Similar: {near}. `chordwise tables {table.name}` lists them.")
    if column_name:
        answer_tables.get(session, view)
    raise UsageError(f"“{name}” is not TABLE.COLUMN.", "Example: contracts.parties")


def _grouped(
    table: AnswerTable, column: AnswerColumn, name: str, kind: EntityKind | None
) -> GroupedColumn:
    columns = answer_tables.columns_of(table)
    before = next((EntityKind(c.entity_kind) for c in columns if c.grouped == name), None)
    kind = kind or before or kind_of(column.item)
    entity_column = replace(
        column,
        name=f"{column.name}_entity",
        kind=_KINDS[column.kind],
        description=f"Entity of {column.name}, by rules and decisions.",
        grouped=name,
        entity_kind=kind,
    )
    return GroupedColumn(table=table, column=entity_column)


def renew(session: Session, target: GroupedColumn) -> int:
    """Group the new values of a column, apply all decisions, and return the number of new values.

    If the column had another kind, all values are new.

    Raises:
        ConfigurationError: The database role may not create views.
        UsageError: Another view has the name of that of the entities.
    """
    kinds = {c.grouped: c.entity_kind for c in answer_tables.columns_of(target.table)}
    if kinds.get(target.name, target.kind) != target.kind:
        stored.clear(session, target.name)
    answer_tables.add_entities(session, target.table, target.column)
    session.flush()
    statement = (
        "SELECT value, count(*) FROM {} WHERE length(value) BETWEEN 1 AND %(longest)s GROUP BY 1"
    )
    counted = target.read(session, statement, longest=MAX_NAME)
    counts = {row["value"]: row["count"] for row in counted}
    known = stored.values_of(session, target.name)
    labels = {value: row.entity_id for value, row in known.items()}
    grouping = group(dict.fromkeys(known, 0) | counts, target.kind, labels)
    decisions = [
        Decision(row.id, Action(row.action), row.names)
        for row in stored.decisions_of(session, target.name)
    ]
    added = stored.add(session, target.name, grouping, known)
    _apply({**known, **added}, counts, decisions)
    session.flush()
    return len(added)


def _apply(
    values: Mapping[str, EntityValue], counts: Mapping[str, int], decisions: Sequence[Decision]
) -> None:
    """Set the entity of each value, which has the name of its usual spelling."""
    joins = {value: (row.id, row.joins) for value, row in values.items()}
    members: dict[object, list[str]] = defaultdict(list)
    for value, entity in entities(joins, decisions).items():
        values[value].entity_id = entity
        members[entity].append(value)
    for spellings in members.values():
        usual = max(spellings, key=lambda value: (counts.get(value, 0), *_legibility(value), value))
        for value in spellings:
            values[value].entity = usual


def _legibility(value: str) -> tuple[bool, int]:
    return not value.isupper() and not value.islower(), len(value)


def decide(
    session: Session,
    target: GroupedColumn,
    action: Action,
    names: Sequence[str],
    author: str = "",
) -> Sequence[str]:
    """Store the decision that names are one entity, or that the others are not the first one.

    Returns the values as they are written in the column.

    Raises:
        UsageError: A name is not a value of the column, or both are the same.
    """
    renew(session, target)
    values = stored.values_of(session, target.name)
    written = [_written(name, values, target.name) for name in names]
    if len({*written}) < len(written):
        raise UsageError(f"“{written[0]}” is one value.", "Name two values of the column.")
    _store(session, target, author, action=action, names=written)
    renew(session, target)
    return written


def _store(session: Session, target: GroupedColumn, author: str, **columns: object) -> None:
    author_name = author.strip() or None
    session.add(EntityDecision(column_name=target.name, author=author_name, **columns))
    session.flush()


def _written(name: str, values: Mapping[str, EntityValue], column: str) -> str:
    if name in values:
        return name
    alike = [value for value in values if value.casefold() == name.casefold()]
    if len(alike) != 1:
        near = identifiers.nearest(name, values)
        raise UsageError(f"“{name}” is not a value of {column}.", f"Similar: {near}.")
    return alike[0]


def undo(session: Session, target: GroupedColumn, author: str = "") -> EntityDecision:
    """Withdraw the last decision in force, and return it; its row is kept.

    Raises:
        UsageError: There is none.
    """
    decisions = stored.decisions_of(session, target.name)
    if not decisions:
        raise UsageError(f"There is no decision on {target.name} to undo.")
    last = decisions[-1]
    _store(session, target, author, action=last.action, names=last.names, withdraws=last.id)
    renew(session, target)
    return last


def listed(session: Session, target: GroupedColumn) -> Sequence[Row]:
    """Return the entities with their numbers of values and documents, the most frequent first."""
    statement = """SELECT entity, entity_id, count(DISTINCT document_id) AS documents,
    array_agg(DISTINCT value) AS values
FROM {} GROUP BY entity, entity_id ORDER BY documents DESC, entity"""
    return target.read(session, statement)


def doubtful(session: Session, target: GroupedColumn) -> Sequence[Row]:
    """Return the doubtful pairs without a decision, the most similar first, with their quotes."""
    values = stored.values_of(session, target.name)
    decided = {
        frozenset(values[name].entity_id for name in row.names if name in values)
        for row in stored.decisions_of(session, target.name)
    }
    pairs: list[Row] = [
        {"value": value, "other": other, "reason": reason, "likeness": likeness}
        for value, row in values.items()
        for other, reason, likeness in _doubts(row)
        if len(sides := {row.entity_id, values[other].entity_id}) > 1 and sides not in decided
    ]
    pairs.sort(key=lambda pair: (-pair["likeness"], pair["value"], pair["other"]))
    names = [pair[side] for pair in pairs for side in ("value", "other")]
    statement = """SELECT DISTINCT ON (value) value, document, quote FROM {}
WHERE value = ANY(%(names)s) ORDER BY value, quote IS NULL, document"""
    contexts = {row["value"]: row for row in target.read(session, statement, names=names)}
    return [
        pair | {"contexts": [contexts.get(pair[side]) for side in ("value", "other")]}
        for pair in pairs
    ]


def _doubts(row: EntityValue) -> Iterator[tuple[str, str, float]]:
    for doubt in row.doubts if isinstance(row.doubts, list) else ():
        if isinstance(doubt, list):
            other, reason, likeness = doubt
            yield str(other), str(reason), float(str(likeness))


# The model

_SAME, _DIFFERENT, _UNCLEAR = "same", "different", "unclear"
_ACTIONS: dict[JsonValue, Action] = {_SAME: Action.MERGE, _DIFFERENT: Action.SPLIT}
_VERDICT: JsonObject = {
    "verdict": {**schemas.one_of((_SAME, _DIFFERENT, _UNCLEAR)), "x-selection": True}
}
_REQUEST = """
Two values of a column may name the same one of the {kind}. Decide by the names and their contexts:
same, different (also a parent and its subsidiary, or two people of a family), or unclear.
"""


def task_for(target: GroupedColumn, pair: Row) -> AnalysisTask:
    """Return the question whether the values of a doubtful pair name the same."""
    sides = zip((pair["value"], pair["other"]), pair["contexts"], strict=True)
    contexts = [{**(context or {}), "value": value} for value, context in sides]
    return AnalysisTask(
        analysis_type=AnalysisType.EXTRACTION,
        stage=Stage.ANALYZE,
        options=AnalysisOptions(
            schema=schemas.closed(_VERDICT), instructions=_REQUEST.format(kind=target.kind)
        ),
        text=json.dumps(contexts, ensure_ascii=False, indent=1),
    )


def ask_model(
    context: ReadingContext, target: GroupedColumn, pairs: Sequence[Row], name: str
) -> tuple[int, ModelError | None]:
    """Let a model decide on doubtful pairs; return the number of decisions, and the last error.

    The calls are in the ledger and within the budget of the day. A pair on which the model does
    not decide stays doubtful.
    """
    ledgers = context.ledgers()
    errors: list[ModelError] = []

    def action_for(pair: Row) -> Action | None:
        ledger = ledgers()
        model = context.models.open(name, CallContext(ledger=ledger, cache=ledger.cache))
        task = task_for(target, pair)
        question = Question(
            model=model, task=task, source=Source(task.text), record_check=ledger.check
        )
        try:
            answer = ask(question).output
        except ModelError as error:
            errors.append(error)
            return None
        finally:
            ledger.flush()
        return _ACTIONS.get(json_values.at(answer, "/data/verdict"))

    with ThreadPoolExecutor(context.settings.worker.concurrency) as threads:
        actions = list(threads.map(action_for, pairs))
    profile = context.models.open(name).profile
    decided = [(action, pair) for action, pair in zip(actions, pairs, strict=True) if action]
    with context.database.write() as session:
        for action, pair in decided:
            names = [pair["value"], pair["other"]]
            author = f"{profile.provider}/{profile.model}"
            _store(session, target, author, action=action, names=names)
        renew(session, target)
    return len(decided), errors[-1] if errors else None
