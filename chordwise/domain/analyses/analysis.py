"""What every analysis type has to say about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from chordwise.domain import json_values
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.tasks import AnalysisOptions, AnalysisTask, AnalysisType

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCount:
    """How many rows a list has, and how many the user's schema allows, where it says so.

    A list that is a selection does not have to have a row for each record of a text.
    """

    number: int
    max_items: int | None = None
    is_selection: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """The answers of consecutive chunks joined by rule, and what of them a model has to reconcile.

    `parts` are the answers as far as a model needs them for that; none where nothing is left to it.
    `contested` are the places in `output` that its answer decides; where there are none, its answer
    stands for the whole.
    """

    output: JsonObject
    parts: Sequence[JsonObject] = ()
    contested: Sequence[str] = ()


class Analysis(ABC):
    """An analysis type: its schema, its checks, how its answers merge, what its facts are.

    An *answer* is what a model returns and the schema describes; grounding adds `start_char`,
    `end_char`, `grounded` and `grounding` beside every `quote`. Merging takes and gives grounded
    answers.
    """

    type: ClassVar[AnalysisType]
    principal_fields: ClassVar[tuple[str, ...]]
    """Of an object with a quote: the members whose first non-empty one is the fact's text."""
    nullable_path: ClassVar[str] = ""
    """The JSON Pointer of a scalar that is a fact, too, where it is null: nothing was found."""
    points: ClassVar[int] = 10
    """The highest confidence that an answer, or a part of it, can claim."""

    @abstractmethod
    def schema(self, options: AnalysisOptions) -> JsonObject:
        """Return the JSON Schema of an answer under these options."""

    def kept(self, answer: JsonObject) -> JsonObject:
        """Return an answer without the members that only serve the model's reasoning."""
        return answer

    def confidence(self, answer: JsonObject) -> float:
        """Return the answer's own confidence on the scale 0 to 1."""
        return claimed(answer) / self.points

    @abstractmethod
    def merge(self, answers: Sequence[JsonObject], options: AnalysisOptions) -> JsonObject:
        """Join the grounded answers of consecutive chunks (one or more) without a model."""

    def join(self, answers: Sequence[JsonObject], options: AnalysisOptions) -> Joining:
        """Join what can be joined without a model; the lists that condense a document cannot."""
        return Joining(output=self.merge(answers, options), parts=answers)

    def decided(self, joining: Joining, answer: JsonObject) -> JsonObject:  # noqa: ARG002
        """Return the joined answer once a model has reconciled its parts in `answer`."""
        return answer

    def needs_model_to_join(self, options: AnalysisOptions) -> bool:  # noqa: ARG002
        """Return whether there are answers under these options that only a model can join."""
        return True

    def row_counts(
        self,
        answers: Sequence[JsonObject],  # noqa: ARG002
        options: AnalysisOptions,  # noqa: ARG002
    ) -> dict[str, RowCount]:
        """Count the rows of several answers together, list by list; one that two have read is one.

        Rows are items that an answer about the whole document has to keep. Lists that condense the
        document, as the findings of a summary do, have none.
        """
        return {}

    def row_places(
        self,
        answer: JsonObject,  # noqa: ARG002
        options: AnalysisOptions,  # noqa: ARG002
    ) -> dict[str, list[list[tuple[int, int]]]]:
        """Return where the rows of each list stand: the spans of each that has some.

        The lists are those of `row_counts`.
        """
        return {}

    def values_without_place(
        self,
        answer: JsonObject,  # noqa: ARG002
        options: AnalysisOptions,  # noqa: ARG002
    ) -> list[JsonObject]:
        """Return evidence that quotes the values of the rows of which no quote was found."""
        return []

    def has_findings(self, answer: JsonObject) -> bool:  # noqa: ARG002
        """Return whether an answer says anything of what was asked for."""
        return True

    def problems(self, answer: JsonObject, task: AnalysisTask) -> list[str]:  # noqa: ARG002
        """Return what is wrong with an answer beyond its schema, in words for the model."""
        return []

    def with_marks(self, answer: JsonObject, options: AnalysisOptions) -> JsonObject:  # noqa: ARG002
        """Return an answer that says of values whether they stand in their quotes."""
        return answer

    def without_evidence(self, answer: JsonObject, options: AnalysisOptions) -> list[str]:  # noqa: ARG002
        """Return the paths of values that should have evidence and have none."""
        return []

    def complete(self, answer: JsonObject, options: AnalysisOptions) -> JsonObject:  # noqa: ARG002
        """Add to a grounded answer what follows from it; the stored output is the outcome."""
        return answer


def mean(values: Iterable[float]) -> float:
    """Return the arithmetic mean; 0 for no values."""
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def scale_to_ten(value: float) -> int:
    """Round to the scale 1 to 10."""
    return min(10, max(1, round(value)))


def claimed(answer: JsonObject, name: str = "confidence") -> float:
    """Return a number that the answer claims; 0 where it claims none."""
    return json_values.number(answer.get(name)) or 0.0


def span_of(finding: JsonObject) -> tuple[int, int] | None:
    """Return the characters at which a grounded quote stands; `None` where it stands nowhere."""
    start, end = finding.get("start_char"), finding.get("end_char")
    return (start, end) if isinstance(start, int) and isinstance(end, int) else None


def unique(items: Iterable[Item]) -> list[Item]:
    """Drop repetitions (strings compare without regard to case), keeping the first of each."""
    seen: set[Hashable] = set()
    kept: list[Item] = []
    for item in items:
        identity = _identity(item)
        if identity not in seen:
            seen.add(identity)
            kept.append(item)
    return kept


def _identity(item: object) -> Hashable:
    if isinstance(item, str):
        return item.strip().casefold()
    if isinstance(item, dict):
        return str(item.get("quote") or sorted(item.items(), key=str)).strip().casefold()
    return str(item)


def take_turns(lists: Sequence[Sequence[Item]], limit: int) -> list[Item]:
    """Pick up to `limit` items: the first of every list, spread evenly, then the seconds, ….

    So a finding of the last chunk has the chance that one of the first chunk has.
    """
    chosen: list[tuple[int, int]] = []
    for rank in range(max((len(items) for items in lists), default=0)):
        places = [place for place, items in enumerate(lists) if rank < len(items)]
        room = limit - len(chosen)
        if room <= 0:
            break
        chosen += [(place, rank) for place in _spread(places, room)]
    return [lists[place][rank] for place, rank in sorted(chosen)]


def _spread(places: list[int], room: int) -> list[int]:
    if len(places) <= room:
        return places
    if room == 1:
        return [places[0]]
    step = (len(places) - 1) / (room - 1)
    return [places[round(index * step)] for index in range(room)]


def gather_objects(answers: Sequence[JsonObject], name: str) -> list[list[JsonObject]]:
    """Return the list of objects under `name`, answer by answer."""
    return [json_values.objects(answer.get(name)) for answer in answers]


def gather_findings(answers: Sequence[JsonObject], name: str, limit: int) -> list[JsonValue]:
    """Return the distinct objects under `name`, taking turns between the answers."""
    return list(unique(take_turns(gather_objects(answers, name), limit)))


def gather_strings(answers: Sequence[JsonObject], name: str, limit: int) -> list[JsonValue]:
    """Return the distinct strings under `name`, taking turns between the answers."""
    lists = [json_values.strings(answer.get(name)) for answer in answers]
    total = sum(len(items) for items in lists)
    return list(unique(take_turns(lists, total))[:limit])
