"""The entities of values after the decisions of people: both are replayed in their order."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter


class Action(StrEnum):
    """What a decision does; stored in `entity_decisions.action`."""

    MERGE = "merge"
    SPLIT = "split"


@dataclass(frozen=True, slots=True)
class Decision:
    """All names are one entity, or the others are not the first one but another."""

    id: uuid.UUID
    action: Action
    names: Sequence[str]


def entities(
    joins: Mapping[str, tuple[uuid.UUID, str]], decisions: Iterable[Decision]
) -> dict[str, uuid.UUID]:
    """Return the identity of the entity of each value.

    `joins` has the id of a value and the value that it joined. Ids ascend with time: a value is
    where the other one was when it joined. A decision is not replayed before its values.
    """
    events: list[tuple[uuid.UUID, int, str | Decision]] = [
        (id_, -1, value) for value, (id_, _) in joins.items()
    ]
    for number, decision in enumerate(decisions):
        if joins.keys() >= {*decision.names}:
            last = max(joins[name][0] for name in decision.names)
            events.append((max(decision.id, last), number, decision))
    replay = _Replay()
    for id_, _, event in sorted(events, key=itemgetter(0, 1)):
        if isinstance(event, Decision):
            replay.decide(event)
        else:
            replay.move([event], replay.entity.get(joins[event][1], id_))
    return replay.entity


class _Replay:
    def __init__(self) -> None:
        self.entity: dict[str, uuid.UUID] = {}
        self._members: dict[uuid.UUID, set[str]] = defaultdict(set)

    def move(self, values: Iterable[str], target: uuid.UUID) -> None:
        for value in values:
            if value in self.entity:
                self._members[self.entity[value]].discard(value)
            self.entity[value] = target
            self._members[target].add(value)

    def decide(self, decision: Decision) -> None:
        first, *others = decision.names
        if decision.action is Action.SPLIT:
            entity = self.entity[first]
            self.move((name for name in others if self.entity[name] == entity), decision.id)
            return
        for other in others:
            if self.entity[other] != self.entity[first]:
                self.move([*self._members[self.entity[other]]], self.entity[first])
