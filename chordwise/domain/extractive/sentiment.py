"""Sentiment by a lexicon: words that praise and blame, bent by negation and emphasis.

Measured as in `tests/integration/test_extractive_corpora.py`, the share of texts whose score has
the sign of the truth (two classes, chance is 0.50, a score of zero counts as half right): 403 film
reviews 0.79, 496 sentences from film reviews 0.70, 298 from product reviews 0.76. The lexicon was
written before it was measured and not fitted to these texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from chordwise.domain import grounding, json_values
from chordwise.domain.analyses.analysis import mean
from chordwise.domain.analyses.sentiment import (
    MAX_EMOTIONS,
    MAX_SENTENCES,
    NEUTRAL_BELOW,
    Sentiment,
    label_for,
)
from chordwise.domain.extractive import words
from chordwise.domain.extractive.checkpoints import checkpoint
from chordwise.domain.extractive.sentences import Sentence, sentences
from chordwise.domain.extractive.valence import (
    EMOTIONS,
    NEGATIONS,
    STRENGTHENING,
    TURNS,
    VALENCE,
    WEAKENING,
)
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.tasks import AnalysisTask

MAX_CONFIDENCE = 0.6
_LEAST_CONFIDENCE = 0.05
_REACH = 3
_NEGATED = -0.7
_STRENGTHENED = 1.4
_WEAKENED = 0.6
_BEFORE_TURN = 0.6
_BLAME_WEIGHT = 1.3
_SMOOTHING = 2.0
_LATE_WEIGHT = 0.5
_BALANCED = 0.75
_BALANCE = 0.03
_ENOUGH_WORDS = 20
_MIXED_FEWEST = 4


class _Rated(NamedTuple):
    text: str
    praise: float
    blame: float
    emotions: tuple[str, ...]

    @property
    def score(self) -> float:
        return _ratio(self.praise, self.blame)


def analyze(task: AnalysisTask) -> JsonObject:
    """Weigh the words of a chunk."""
    rated = [_rate(sentence) for sentence in sentences(task.text)]
    praise, blame = _total(rated)
    score = _ratio(praise, blame)
    carrying = [one for one in rated if one.praise or one.blame]
    emotions = Counter(emotion for one in rated for emotion in one.emotions)
    return {
        "label": _label(score, carrying, praise, blame),
        "score": round(score, 3),
        "confidence": _confidence(score, len(carrying)),
        "emotions": [name for name, _ in emotions.most_common(MAX_EMOTIONS)],
        "sentences": _strongest(carrying),
    }


def synthesize(task: AnalysisTask) -> JsonObject:
    """Average the chunks; they are mixed only where their mean says nothing."""
    merged = Sentiment().merge(task.answers, task.options)
    score = json_values.number(merged["score"]) or 0.0
    if merged["label"] == "mixed" and abs(score) > NEUTRAL_BELOW:
        merged["label"] = label_for(score, [score])
    merged["confidence"] = min(MAX_CONFIDENCE, json_values.number(merged["confidence"]) or 0.0)
    return json_values.as_object(grounding.without_spans(merged))


def polarity(text: str) -> float:
    """Return a text's score, -1 to 1; 0 where no word of it is in the lexicon."""
    return _ratio(*_total([_rate(sentence) for sentence in sentences(text)]))


def _rate(sentence: Sentence) -> _Rated:
    checkpoint()
    listed = words.words(sentence.text)
    turn = max((place for place, word in enumerate(listed) if word in TURNS), default=0)
    praise = blame = 0.0
    for place, word in enumerate(listed):
        if word in VALENCE:
            strength = _bent(listed, place) * (_BEFORE_TURN if place < turn else 1.0)
            praise += max(0.0, strength)
            blame += max(0.0, -strength) * _BLAME_WEIGHT
    emotions = tuple(name for name, known in EMOTIONS.items() if not known.isdisjoint(listed))
    return _Rated(sentence.text, praise, blame, emotions)


def _bent(listed: Sequence[str], place: int) -> float:
    """Return the strength of a word after what stands before it."""
    strength = float(VALENCE[listed[place]])
    before = listed[max(0, place - _REACH) : place]
    if not NEGATIONS.isdisjoint(before):
        strength *= _NEGATED
    if before and before[-1] in STRENGTHENING:
        return strength * _STRENGTHENED
    if before and before[-1] in WEAKENING:
        return strength * _WEAKENED
    return strength


def _total(rated: Sequence[_Rated]) -> tuple[float, float]:
    """Sum up, later sentences counting somewhat more: a verdict tends to come last."""
    praise = blame = 0.0
    for place, one in enumerate(rated):
        weight = 1 + _LATE_WEIGHT * place / len(rated)
        praise += one.praise * weight
        blame += one.blame * weight
    return praise, blame


def _ratio(praise: float, blame: float) -> float:
    return (praise - blame) / (praise + blame + _SMOOTHING)


def _label(score: float, carrying: Sequence[_Rated], praise: float, blame: float) -> str:
    """Name the score; where much is said on both sides, a balance is mixed and not neutral."""
    smaller, larger = sorted((praise, blame))
    if smaller <= larger * _BALANCED or len(carrying) < _MIXED_FEWEST:
        return label_for(score, [score])
    if abs(score) < _BALANCE:
        return "mixed"
    return "positive" if score > 0 else "negative"


def _confidence(score: float, count: int) -> float:
    """Grow with the margin and with the number of sentences that carry any feeling."""
    if not count:
        return _LEAST_CONFIDENCE
    margin = min(1.0, abs(score) / (NEUTRAL_BELOW * 5))
    plenty = min(1.0, count / _ENOUGH_WORDS)
    return round(0.2 + (MAX_CONFIDENCE - 0.2) * mean((margin, plenty)), 3)


def _strongest(carrying: Sequence[_Rated]) -> list[JsonValue]:
    distinct = {one.text: one for one in carrying}
    ranked = sorted(distinct.values(), key=lambda one: -abs(one.praise - one.blame))
    return [{"quote": one.text, "score": round(one.score, 3)} for one in ranked[:MAX_SENTENCES]]
