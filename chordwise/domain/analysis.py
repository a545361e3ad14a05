"""The interface of analysis types, the types by name, and helpers for merging their answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from chordwise.domain import json_values
from chordwise.domain.analysis_tasks import ANALYSES, AnalysisOptions, AnalysisTask, AnalysisType
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.kinds import Kinds

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCount:
    """The number of rows of a list, and the maximum that the user's schema allows, if any.

    A list that is a selection need not have a row for each record of the text.
    """

    number: int
    max_items: int | None = None
    is_selection: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """The answers of consecutive chunks joined by rule, and the parts that a model reconciles.

    `parts` are the answers, reduced to what a model needs; empty if no model is needed. `contested`
    are the places in `output` that the model's answer decides; if there are none, the model's
    answer replaces the whole output.
    """

    output: JsonObject
    parts: Sequence[JsonObject] = ()
    contested: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AnswerSection:
    """A part of an output as people see it: the value at a JSON Pointer between label and note.

    Of the objects in a list, `members` are shown before the quote; without `members` they are rows
    with the value, the quote and the confidence of a field.
    """

    label: str
    path: str
    members: tuple[str, ...] = ()
    note: str = ""
    is_joined: bool = False


class BuiltIn(Protocol):
    """The answers of the built-in model to an analysis type; deterministic."""

    def analyze(self, task: AnalysisTask) -> JsonObject:
        """Answer a question about a text."""

    def synthesize(self, task: AnalysisTask) -> JsonObject:
        """Join the answers about the chunks of a document."""


_BUILT_IN: Kinds[BuiltIn] = Kinds("chordwise.domain.extractive")


class AnalysisDefinition(ABC):
    """Everything that is specific to an analysis type: schema, checks, merging, facts, columns.

    An *answer* is what a model returns and the schema describes; grounding adds `start_char`,
    `end_char`, `grounded` and `grounding` beside every `quote`. Merging takes and returns grounded
    answers.
    """

    principal_fields: ClassVar[tuple[str, ...]]
    """The members of an object with a quote; the first non-empty one is the fact's value."""
    nullable_path: ClassVar[str] = ""
    """The JSON Pointer of a scalar that is a fact even if it is null (nothing was found)."""
    label_path: ClassVar[str] = ""
    """The JSON Pointer of the label, for a type that is judged by one; views expect `/label`."""
    derived: ClassVar[str] = ""
    """The member that `complete` adds and that repeats others, so that it is no fact."""
    sections: ClassVar[Sequence[AnswerSection]] = (AnswerSection("Answer", ""),)
    """The parts of an output in the order in which they are shown."""
    max_confidence: ClassVar[int] = 10
    """The highest confidence that an answer or a part of it can claim."""
    is_prose: ClassVar[bool] = False
    """Whether equally good answers differ in their words, so that votes compare words."""
    complexity: ClassVar[float]
    """The difficulty of the analysis for a model, 0 to 1 (docs/models.md)."""
    assumed_length: ClassVar[tuple[float, float]]
    """The length of an answer without observations: fixed tokens, and a share of the text."""
    principles: ClassVar[tuple[str, ...]]
    """The principles of a critique, after those that apply to every type."""
    label_columns: ClassVar[Mapping[str, str]] = {}
    """The columns of labels in answer tables, with the items of their facts."""
    score_columns: ClassVar[Mapping[str, str]] = {}
    """The columns of scores, likewise."""

    @property
    def type(self) -> AnalysisType:
        """The name of the type, which is that of its module."""
        return AnalysisType(self.__module__.rpartition(".")[2])

    @abstractmethod
    def schema(self, options: AnalysisOptions) -> JsonObject:
        """Return the JSON Schema of an answer under these options."""

    def question_schema(self, options: AnalysisOptions) -> JsonObject:
        """Return the schema of an answer about a text, with what a model states about it."""
        return self.schema(options)

    def with_counts(self, answer: JsonObject, options: AnalysisOptions) -> JsonObject:
        """Return an answer in the form of `question_schema`; its numbers are those of its rows."""
        return answer

    def headline(self, output: JsonObject) -> str:
        """Return a one-line summary of an output, for lists of documents: its JSON by default."""
        return json_values.encoded(output)

    def built_in(self) -> BuiltIn | None:
        """Return the built-in model's module of this name in `extractive/`; `None` without one."""
        return _BUILT_IN.get(self.type)

    def labels(self, options: AnalysisOptions) -> Sequence[str]:
        """Return the labels that an answer can choose from; empty if any text may be a label."""
        return ()

    def with_label(self, output: JsonObject, label: str | None) -> JsonObject:
        """Return an output with another label, without findings about the wrong one."""
        return {**output, self.label_path.removeprefix("/"): label}

    def without_reasoning(self, answer: JsonObject) -> JsonObject:
        """Return an answer without the members that only serve the model's reasoning."""
        return answer

    def confidence(self, answer: JsonObject) -> float:
        """Return the confidence that the answer claims, on the scale 0 to 1."""
        return claimed_number(answer) / self.max_confidence

    @abstractmethod
    def merge(self, answers: Sequence[JsonObject], options: AnalysisOptions) -> JsonObject:
        """Join the grounded answers of consecutive chunks (at least one) without a model."""

    def join(self, answers: Sequence[JsonObject], options: AnalysisOptions) -> Joining:
        """Join the answers as far as possible without a model; by default it reconciles all."""
        return Joining(output=self.merge(answers, options), parts=answers)

    def apply_reconciliation(self, joining: Joining, answer: JsonObject) -> JsonObject:
        """Return the joined answer after a model has reconciled its parts in `answer`."""
        return answer

    def needs_model_to_join(self, options: AnalysisOptions) -> bool:
        """Return whether answers under these options may need a model to be joined."""
        return True

    def row_counts(
        self, answers: Sequence[JsonObject], options: AnalysisOptions
    ) -> dict[str, RowCount]:
        """Count the rows of each list over several answers; a row in two answers counts once.

        Lists that condense the document, such as the findings of a summary, have none.
        """
        return {}

    def row_places(
        self, answer: JsonObject, options: AnalysisOptions
    ) -> dict[str, list[list[tuple[int, int]]]]:
        """Return the spans of the located rows of each list of `row_counts`."""
        return {}

    def has_findings(self, answer: JsonObject) -> bool:
        """Return whether an answer contains anything that was asked for."""
        return True

    def problems(self, answer: JsonObject, task: AnalysisTask) -> list[str]:
        """Return the problems of an answer beyond its schema, as texts for the model."""
        return []

    def with_marks(self, answer: JsonObject, options: AnalysisOptions) -> JsonObject:
        """Return an answer in which values are marked by whether they occur in their quotes."""
        return answer

    def without_evidence(self, answer: JsonObject, options: AnalysisOptions) -> list[str]:
        """Return the paths of values that lack required evidence."""
        return []

    def complete(self, answer: JsonObject, options: AnalysisOptions) -> JsonObject:
        """Return a grounded answer with derived members; the result is the stored output."""
        return answer


NO_LABEL = "no label fits"
"""The text that stands for a missing label, in outputs for people and in truths."""


def analysis_for(analysis_type: str) -> AnalysisDefinition:
    """Return the analysis of this type."""
    return ANALYSES[analysis_type]


def headline(analysis_type: str, output: JsonObject) -> str:
    """Return a one-line summary of a stored output, which may be of a type that is unknown here."""
    known = ANALYSES.get(analysis_type)
    return known.headline(output) if known else json_values.encoded(output)


def sections_of(analysis_type: str) -> Sequence[AnswerSection]:
    """Return the parts of a stored output, which may be of a type that is unknown here."""
    return ANALYSES.get(analysis_type, AnalysisDefinition).sections


def label_paths() -> list[str]:
    """Return the paths of labels, of all types."""
    return [analysis.label_path for analysis in ANALYSES.values() if analysis.label_path]


def mean(values: Iterable[float]) -> float:
    """Return the arithmetic mean; 0 for no values."""
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


def scale_to_ten(value: float) -> int:
    """Return a number rounded to the scale 1 to 10."""
    return min(10, max(1, round(value)))


def display_number(value: JsonValue) -> str:
    """Return a number for display, or a dash for any other value."""
    number = json_values.number(value)
    return "–" if number is None else f"{number:g}"


def claimed_number(answer: JsonObject, name: str = "confidence") -> float:
    """Return a number that the answer claims, or 0."""
    return json_values.number(answer.get(name)) or 0.0


def unique(items: Iterable[Item]) -> list[Item]:
    """Return the items without duplicates, the first of each; strings compare without case."""
    first: dict[str, Item] = {}
    for item in items:
        shown: object = item
        if isinstance(item, dict):
            shown = item.get("quote") or sorted(item.items(), key=str)
        first.setdefault(str(shown).strip().casefold(), item)
    return list(first.values())


def round_robin(lists: Sequence[Sequence[Item]], limit: int) -> list[Item]:
    """Return up to `limit` items, chosen round-robin: the first of each list, then the second.

    The result has the order of the lists. If a round does not fit, its lists are chosen evenly, so
    that findings of the last chunk have the same chance as those of the first.
    """
    chosen: list[tuple[int, int]] = []
    for rank in range(max((len(items) for items in lists), default=0)):
        places = [place for place, items in enumerate(lists) if rank < len(items)]
        room = limit - len(chosen)
        if room <= 0:
            break
        if room < len(places):
            step = (len(places) - 1) / max(1, room - 1)
            places = [places[round(index * step)] for index in range(room)]
        chosen += [(place, rank) for place in places]
    return [lists[place][rank] for place, rank in sorted(chosen)]


def gather_objects(answers: Sequence[JsonObject], name: str) -> list[list[JsonObject]]:
    """Return the list of objects under `name` of each answer."""
    return [json_values.objects(answer.get(name)) for answer in answers]


def gather_findings(answers: Sequence[JsonObject], name: str, limit: int) -> list[JsonValue]:
    """Return the distinct objects under `name`, chosen round-robin from the answers."""
    return list(unique(round_robin(gather_objects(answers, name), limit)))


def gather_strings(answers: Sequence[JsonObject], name: str, limit: int) -> list[JsonValue]:
    """Return the distinct strings under `name`, chosen round-robin from the answers."""
    lists = [json_values.strings(answer.get(name)) for answer in answers]
    return list(unique(round_robin(lists, sum(map(len, lists))))[:limit])
