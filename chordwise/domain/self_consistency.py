"""Self-consistency: the answer that several samples of one question agree on, and how far.

After Wang et al., Self-Consistency Improves Chain of Thought Reasoning in Language Models, 2022
(arXiv 2203.11171). A whole sample wins where its parts hang together; where they do not, as the
items of an extraction, each is voted on. The order of the samples never matters.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from chordwise.domain import json_values
from chordwise.domain.analyses import extraction
from chordwise.domain.analyses.analysis import claimed
from chordwise.domain.answers import Answer, quality_of
from chordwise.domain.extractive import words
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.tasks import AnalysisOptions, AnalysisType

Marks: TypeAlias = frozenset[tuple[str, str, int]]
"""By what two samples are compared: the more marks they share, the more they agree.

Each is a place, what stands there, and how often it has been met so far.
"""

_LABELS = {AnalysisType.CLASSIFICATION: "primary_label", AnalysisType.SENTIMENT: "label"}
_WORDED = (AnalysisType.SUMMARY, AnalysisType.REASONING)
_DIGITS = 6


def elected(samples: Sequence[Answer], kind: AnalysisType, options: AnalysisOptions) -> Answer:
    """Return what samples of one question agree on, one or more; alone, a sample has no agreement.

    Classification and sentiment: the label with most votes, of equals the surest. Extraction: item
    by item, the values that more than half have found, else what most say. Everything else, an
    extraction by a user's own schema included: the sample most like all others.
    """
    if len(samples) == 1:
        return samples[0]
    if kind in _LABELS:
        return _by_label(samples, _LABELS[kind])
    if kind is AnalysisType.EXTRACTION and options.schema is None:
        return _by_item(samples, extraction.items(options))
    return _most_alike(samples, _words_of if kind in _WORDED else _values_of)


def combined(parts: Iterable[float | None], joined: float | None = None) -> float | None:
    """Return the agreement of an answer that joins others: its own, or their mean where lower."""
    known = [part for part in parts if part is not None]
    mean = [_share(math.fsum(known), len(known))] if known else []
    own = [] if joined is None else [joined]
    return min([*mean, *own], default=None)


def tempered(confidence: float, agreement: float | None, kind: AnalysisType) -> float:
    """Return what a claimed confidence is worth after a vote.

    Labels and values are worth the share that stands behind them. Two good texts are never the
    same word for word, so a summary or an argument loses half of that at most.
    """
    if agreement is None:
        return confidence
    worth = (1 + agreement) / 2 if kind in _WORDED else agreement
    return round(confidence * worth, _DIGITS)


def _by_label(samples: Sequence[Answer], name: str) -> Answer:
    camps: dict[str, list[Answer]] = defaultdict(list)
    for sample in samples:
        camps[_folded(json_values.text(sample.output.get(name)))].append(sample)
    labels = sorted(camps)
    winners = camps[max(labels, key=lambda label: (len(camps[label]), _claim(camps[label])))]
    return replace(
        _foremost(winners),
        confidence=_share(_claim(winners), len(winners)),
        agreement=_share(len(winners), len(samples)),
    )


def _most_alike(samples: Sequence[Answer], marks_of: Callable[[JsonObject], Marks]) -> Answer:
    marks = [marks_of(sample.output) for sample in samples]
    sums = (math.fsum(_alike(own, each) for each in marks) for own in marks)
    agreements = [_share(each, len(marks)) for each in sums]
    # Of equals the one with more rows.
    rows = [len(own) if marks_of is _values_of else 0 for own in marks]
    ranks = list(zip(agreements, rows, strict=True))
    best = max(ranks)
    winners = [sample for sample, rank in zip(samples, ranks, strict=True) if rank == best]
    return replace(_foremost(winners), agreement=best[0])


def _by_item(samples: Sequence[Answer], items: Sequence[str]) -> Answer:
    """Put the entries together that the samples agree on; the foremost one gives its name."""
    ballots = [_Ballot.of(item, [sample.output for sample in samples]) for item in items]
    fields: list[JsonValue] = [entry for ballot in ballots for entry in ballot.elected()]
    output: JsonObject = {"fields": fields}
    repaired = any(sample.repaired for sample in samples)
    return replace(
        _foremost(samples),
        output=output,
        confidence=extraction.Extraction().confidence(output),
        quality=quality_of(output, repaired=repaired),
        repaired=repaired,
        agreement=_share(math.fsum(ballot.agreement for ballot in ballots), len(ballots)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ballot:
    """What samples say about one item: entries by the mention of a value, and denials."""

    count: int
    found: dict[tuple[str, int], list[JsonObject]] = field(default_factory=dict)
    denials: list[JsonObject] = field(default_factory=list)

    @classmethod
    def of(cls, item: str, outputs: Sequence[JsonObject]) -> _Ballot:
        """Count the samples; the second mention of a value is voted on apart from the first."""
        ballot = cls(count=len(outputs))
        for output in outputs:
            own = [f for f in json_values.objects(output.get("fields")) if f.get("item") == item]
            mentions: Counter[str] = Counter()
            for entry in sorted(own, key=_place):
                if entry.get("status") == extraction.FOUND:
                    value = _folded(json_values.text(entry.get("value")))
                    mentions[value] += 1
                    ballot.found.setdefault((value, mentions[value]), []).append(entry)
            if own and not mentions:
                ballot.denials.append(_surest(own))
        return ballot

    def elected(self) -> list[JsonObject]:
        """Return the entries that win, in the order of the document."""
        winners = [_surest(self.found[value]) for value in self._values()]
        denied = [] if winners or not self.denials else [_surest(self.denials)]
        return sorted(winners, key=_place) + denied

    @property
    def agreement(self) -> float:
        """Return the share of the samples behind what won, on average over its values."""
        voices = [len(self.found[value]) for value in self._values()] or [len(self.denials)]
        return _share(sum(voices), len(voices) * self.count)

    def _values(self) -> list[tuple[str, int]]:
        """Return the values that more than half have found; without any, what most of all say."""
        most = [value for value, entries in self.found.items() if 2 * len(entries) > self.count]
        if most or not self.found or 2 * len(self.denials) >= self.count:
            return most

        def weight(value: tuple[str, int]) -> tuple[int, float]:
            entries = self.found[value]
            return len(entries), math.fsum(claimed(entry) for entry in entries)

        return [max(sorted(self.found), key=weight)]


def _words_of(output: JsonObject) -> Marks:
    texts = (value for _, value in json_values.walk(output) if isinstance(value, str))
    return frozenset(("", term, 1) for text in texts for term in words.terms(text))


def _values_of(output: JsonObject) -> Marks:
    """Return the values of a user's own data with their places; those of lists have no order.

    A value that several rows of a list have counts as often as it stands there.
    """
    met: Counter[tuple[str, str]] = Counter()
    marks: set[tuple[str, str, int]] = set()
    for path, value in json_values.walk(output.get("data")):
        if not isinstance(value, dict | list):
            steps = ("*" if step.isdecimal() else step for step in path.split("/"))
            leaf = ("/".join(steps), _leaf(value))
            met[leaf] += 1
            marks.add((*leaf, met[leaf]))
    return frozenset(marks)


def _leaf(value: JsonValue) -> str:
    """Return a value of user's data by which it is compared: 7 is 7.0, and a text is no number."""
    if isinstance(value, str):
        return f'"{_folded(value)}"'
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _alike(one: Marks, other: Marks) -> float:
    """Return the share of what both say that both say alike (Dice's coefficient)."""
    total = len(one) + len(other)
    return 2 * len(one & other) / total if total else 1.0


def _foremost(answers: Collection[Answer]) -> Answer:
    """Return the best grounded, then the surest answer; among equals, always the same one."""
    return max(answers, key=lambda a: (a.quality, a.confidence, _spelled(a.output), a.model))


def _surest(entries: Collection[JsonObject]) -> JsonObject:
    """Return the entry whose quote stands in the text, then the one that claims most."""
    return max(entries, key=lambda e: (e.get("grounded") is True, claimed(e), _spelled(e)))


def _place(entry: JsonObject) -> tuple[float, str]:
    start = json_values.number(entry.get("start_char"))
    return math.inf if start is None else start, _spelled(entry)


def _claim(answers: Iterable[Answer]) -> float:
    return math.fsum(answer.confidence for answer in answers)


def _share(part: float, whole: int) -> float:
    return min(1.0, round(part / whole, _DIGITS))


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;:")


def _spelled(value: JsonValue) -> str:
    return json.dumps(value, sort_keys=True)
