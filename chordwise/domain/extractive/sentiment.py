"""Sentiment by positive and negative words and negation, and by meaning with an encoder."""

from __future__ import annotations

from typing import NamedTuple

from chordwise.domain import grounding, json_values, words
from chordwise.domain.analyses.sentiment import MAX_SENTENCES, NEUTRAL_BELOW, Sentiment, label_for
from chordwise.domain.analysis import claimed_number, mean
from chordwise.domain.analysis_tasks import AnalysisTask
from chordwise.domain.extractive.answer_context import checkpoint, similarities
from chordwise.domain.extractive.sentences import Sentence, sentences
from chordwise.domain.json_values import JsonObject
from chordwise.domain.words import LEXICON

MAX_CONFIDENCE = 0.6
_LEAST_CONFIDENCE = 0.05
_REACH = 3
_NEGATED = -0.7
_BLAME_WEIGHT = 1.3
_SMOOTHING = 2.0
_BALANCED = 0.75
_ENOUGH_SENTENCES = 20
_MIXED_FEWEST = 4
_LEANING_WEIGHT = 30.0
_OPPOSITES = (
    ("This is great, I love it.", "This is terrible, I hate it."),
    ("I like it and recommend it.", "I do not like it and do not recommend it."),
    ("It works very well.", "It does not work."),
    ("excellent, wonderful, enjoyable", "awful, terrible, boring"),
    ("a positive opinion", "a negative opinion"),
    ("praise", "complaint"),
)
_VALENCE = {word: int(name) for name, listed in LEXICON["valence"].items() for word in listed}
_NEGATING = frozenset(LEXICON["words"]["negating"])


class _Rated(NamedTuple):
    text: str
    praise: float
    blame: float


def analyze(task: AnalysisTask) -> JsonObject:
    """Score the words of a chunk; emotions are not distinguished."""
    rated = [_rate(sentence) for sentence in sentences(task.text)]
    praise, blame = sum(one.praise for one in rated), sum(one.blame for one in rated)
    score = _ratio(praise, blame)
    carrying = list({one.text: one for one in rated if one.praise or one.blame}.values())
    carrying.sort(key=lambda one: -abs(one.praise - one.blame))
    is_balanced = min(praise, blame) > max(praise, blame) * _BALANCED
    is_mixed = is_balanced and abs(score) < NEUTRAL_BELOW and len(carrying) >= _MIXED_FEWEST
    return {
        "label": "mixed" if is_mixed else label_for(score, [score]),
        "score": round(score, 3),
        "confidence": _confidence(score, len(carrying)),
        "emotions": [],
        "sentences": [
            {"quote": one.text, "score": round(_ratio(one.praise, one.blame), 3)}
            for one in carrying[:MAX_SENTENCES]
        ],
    }


def synthesize(task: AnalysisTask) -> JsonObject:
    """Average the chunks; the label is “mixed” only if the mean is neutral."""
    merged = Sentiment().merge(task.answers, task.options)
    score = json_values.number(merged["score"]) or 0.0
    if merged["label"] == "mixed" and abs(score) > NEUTRAL_BELOW:
        merged["label"] = label_for(score, [score])
    merged["confidence"] = min(MAX_CONFIDENCE, claimed_number(merged))
    return grounding.without_spans(merged)


def _rate(sentence: Sentence) -> _Rated:
    checkpoint()
    listed = words.words(sentence.text)
    near = similarities(sentence.text, [phrase for pair in _OPPOSITES for phrase in pair])
    leaning = _LEANING_WEIGHT * (mean(near[::2]) - mean(near[1::2]))
    praise, blame = max(0.0, leaning), max(0.0, -leaning)
    for index, word in enumerate(listed):
        if word in _VALENCE:
            is_negated = not _NEGATING.isdisjoint(listed[max(0, index - _REACH) : index])
            strength = _VALENCE[word] * (_NEGATED if is_negated else 1.0)
            praise += max(0.0, strength)
            blame += max(0.0, -strength) * _BLAME_WEIGHT
    return _Rated(sentence.text, praise, blame)


def _ratio(praise: float, blame: float) -> float:
    return (praise - blame) / (praise + blame + _SMOOTHING)


def _confidence(score: float, count: int) -> float:
    margin = min(1.0, abs(score) / (NEUTRAL_BELOW * 5))
    plenty = min(1.0, count / _ENOUGH_SENTENCES)
    confidence = 0.2 + (MAX_CONFIDENCE - 0.2) * mean((margin, plenty))
    return round(confidence, 3) if count else _LEAST_CONFIDENCE
