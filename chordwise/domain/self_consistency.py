"""Self-consistency: the answer on which several samples of a question agree, and how far.

After Wang et al., Self-Consistency Improves Chain of Thought Reasoning in Language Models, 2022
(arXiv 2203.11171). If the parts of a sample depend on each other, a whole sample wins; independent
parts, such as the items of an extraction, are voted on separately. The order of the samples does
not matter.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from chordwise.domain import json_values, words
from chordwise.domain.analyses import extraction
from chordwise.domain.analysis import analysis_for, claimed_number
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisType
from chordwise.domain.answers import Answer, quality_of
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.schema_data import canonical_json

Marks: TypeAlias = frozenset[tuple[str, str, int]]
"""The features of a sample: the more marks two samples share, the more they agree.

Each mark is a place, the value there, and how often it has occurred so far.
"""

_DIGITS = 6


def elected(samples: Sequence[Answer], kind: AnalysisType, options: AnalysisOptions) -> Answer:
    """Return the answer elected by one or more samples; a single sample has no agreement.

    Labels: that with the most votes. Extraction: for each item the values of more than half of the
    samples, otherwise the most frequent one. All others, including extraction by the schema of a
    user: the sample most similar to all others.
    """
    if len(samples) == 1:
        return samples[0]
    analysis = analysis_for(kind)
    if analysis.label_path:
        return _by_label(samples, analysis.label_path)
    if kind == AnalysisType.EXTRACTION and options.schema is None:
        return _by_item(samples, extraction.items(options))
    if analysis.is_prose:
        return _most_alike(samples, [_words_of(sample.output) for sample in samples])
    marks = [_values_of(sample.output) for sample in samples]
    # Of equal samples, the one with more rows wins.
    return _with_shares(_most_alike(samples, marks, [*map(len, marks)]), marks)


def combined(parts: Iterable[float | None], joined: float | None = None) -> float | None:
    """Return the agreement of a joined answer: its own, or the mean of its parts if lower."""
    known = [part for part in parts if part is not None]
    mean = _share(math.fsum(known), len(known)) if known else None
    return min((whole for whole in (mean, joined) if whole is not None), default=None)


def adjusted_confidence(confidence: float, agreement: float | None, kind: AnalysisType) -> float:
    """Return a claimed confidence, adjusted by the agreement of a vote.

    For labels and values it is multiplied by the agreement. Two good texts are never identical, so
    the confidence of a summary or an argument is reduced by at most half.
    """
    if agreement is None:
        return confidence
    worth = (1 + agreement) / 2 if analysis_for(kind).is_prose else agreement
    return round(confidence * worth, _DIGITS)


def _by_label(samples: Sequence[Answer], path: str) -> Answer:
    camps: dict[str, list[Answer]] = defaultdict(list)
    for sample in samples:
        camps[_folded(json_values.text(json_values.at(sample.output, path)))].append(sample)

    def claim(label: str) -> float:
        return math.fsum(answer.confidence for answer in camps[label])

    label = max(sorted(camps), key=lambda label: (len(camps[label]), claim(label)))
    winners = camps[label]
    confidence, agreement = _share(claim(label), len(winners)), _share(len(winners), len(samples))
    return replace(_foremost(winners), confidence=confidence, agreement=agreement)


def _most_alike(
    samples: Sequence[Answer], marks: Sequence[Marks], rows: Iterable[int] = itertools.repeat(0)
) -> Answer:
    sums = (math.fsum(_alike(left, right) for right in marks) for left in marks)
    ranks = [(_share(total, len(marks)), count) for total, count in zip(sums, rows, strict=False)]
    best = max(ranks)
    winners = [sample for sample, rank in zip(samples, ranks, strict=True) if rank == best]
    return replace(_foremost(winners), agreement=best[0])


def _with_shares(winner: Answer, marks: Sequence[Marks]) -> Answer:
    """Return the winner with the share of samples that have the same value, in its evidence."""
    data = winner.output.get("data")

    def shared(entry: JsonObject) -> JsonObject:
        path = json_values.text(entry.get("path"))
        value = json_values.at(data, path)
        if value is None or isinstance(value, dict | list):
            return entry
        same = sum((_starred(path), _leaf(value), 1) in sample for sample in marks)
        return {**entry, "agreement": _share(same, len(marks))}

    evidence: list[JsonValue] = list(map(shared, json_values.objects(winner.output["evidence"])))
    return replace(winner, output={**winner.output, "evidence": evidence})


def _by_item(samples: Sequence[Answer], items: Sequence[str]) -> Answer:
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
    """The votes of samples on one item: entries by the mention of a value, and denials."""

    count: int
    votes: dict[tuple[str, int], list[JsonObject]] = field(default_factory=dict)
    denials: list[JsonObject] = field(default_factory=list)

    @classmethod
    def of(cls, item: str, outputs: Sequence[JsonObject]) -> _Ballot:
        """Count the votes; the second mention of a value is voted on separately from the first."""
        ballot = cls(count=len(outputs))
        for output in outputs:
            fields = [f for f in json_values.objects(output.get("fields")) if f.get("item") == item]
            mentions: Counter[str] = Counter()
            for entry in sorted(fields, key=_place):
                if entry.get("status") == extraction.FOUND:
                    value = _folded(json_values.text(entry.get("value")))
                    mentions[value] += 1
                    ballot.votes.setdefault((value, mentions[value]), []).append(entry)
            if fields and not mentions:
                ballot.denials.append(_surest(fields))
        return ballot

    def elected(self) -> list[JsonObject]:
        winners: list[JsonObject] = [
            {**_surest(entries), "agreement": _share(len(entries), self.count)}
            for entries in (self.votes[value] for value in self._values())
        ]
        denied = [] if winners or not self.denials else [_surest(self.denials)]
        return sorted(winners, key=_place) + denied

    @property
    def agreement(self) -> float:
        """Return the share of the samples that support the winners, averaged over the values."""
        voices = [len(self.votes[value]) for value in self._values()] or [len(self.denials)]
        return _share(sum(voices), len(voices) * self.count)

    def _values(self) -> list[tuple[str, int]]:
        """Return the values of more than half of the samples, else the most frequent one."""
        majority = [value for value, entries in self.votes.items() if 2 * len(entries) > self.count]
        if majority or not self.votes or 2 * len(self.denials) >= self.count:
            return majority

        def weight(value: tuple[str, int]) -> tuple[int, float]:
            entries = self.votes[value]
            return len(entries), math.fsum(claimed_number(entry) for entry in entries)

        return [max(sorted(self.votes), key=weight)]


def _words_of(output: JsonObject) -> Marks:
    texts = (json_values.text(value) for _, value in json_values.walk(output))
    return frozenset(("", term, 1) for text in texts for term in words.terms(text))


def _values_of(output: JsonObject) -> Marks:
    """A value in several rows of a list counts once for each occurrence."""
    met: Counter[tuple[str, str]] = Counter()
    marks: set[tuple[str, str, int]] = set()
    for path, value in json_values.scalars(output.get("data")):
        leaf = (_starred(path), _leaf(value))
        met[leaf] += 1
        marks.add((*leaf, met[leaf]))
    return frozenset(marks)


def _starred(path: str) -> str:
    return "/".join("*" if step.isdecimal() else step for step in path.split("/"))


def _leaf(value: JsonValue) -> str:
    """Return the comparison form of a value: 7 equals 7.0, and a text never equals a number."""
    if isinstance(value, str):
        return f'"{_folded(value)}"'
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _alike(one: Marks, other: Marks) -> float:
    """Return the similarity of two samples (Dice's coefficient)."""
    total = len(one) + len(other)
    return 2 * len(one & other) / total if total else 1.0


def _foremost(answers: Collection[Answer]) -> Answer:
    return max(answers, key=lambda a: (a.quality, a.confidence, canonical_json(a.output), a.model))


def _surest(entries: Collection[JsonObject]) -> JsonObject:
    return max(
        entries, key=lambda e: (e.get("grounded") is True, claimed_number(e), canonical_json(e))
    )


def _place(entry: JsonObject) -> tuple[float, str]:
    start = json_values.number(entry.get("start_char"))
    return math.inf if start is None else start, canonical_json(entry)


def _share(part: float, whole: int) -> float:
    return min(1.0, round(part / whole, _DIGITS))


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .,;:")
