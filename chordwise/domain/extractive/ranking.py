"""Ranking sentences by centrality, and selecting diverse ones.

The rank is that of LexRank with continuous weights (Erkan and Radev 2004, arXiv 1109.2128). Its
matrix, the sentence-term matrix times its transpose, is never built.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from operator import mul

from chordwise.domain.extractive.answer_context import checkpoint
from chordwise.domain.extractive.sentences import Sentence

Vector = dict[str, float]

_DAMPING = 0.85
_STEPS = 8
_FEW_TERMS = 12
_REDUNDANCY = 0.8
_NEARNESS = 0.3


def inverse_document_frequencies(term_lists: Sequence[Iterable[str]]) -> Vector:
    """Return the inverse document frequency of each term over the lists."""
    counts = Counter(term for terms in term_lists for term in dict.fromkeys(terms))
    return {term: math.log(1 + len(term_lists) / count) for term, count in counts.items()}


def vector(terms: Iterable[str], weights: Vector) -> Vector:
    """Return terms as a vector of length 1; empty if no term has a weight."""
    raw = {term: count * weights[term] for term, count in Counter(terms).items() if term in weights}
    length = math.sqrt(sum(value * value for value in raw.values()))
    return {term: value / length for term, value in raw.items()} if length else {}


def similarity(one: Vector, other: Vector) -> float:
    """Return the cosine of two vectors of length 1."""
    one, other = sorted((one, other), key=len)
    return sum(value * other[term] for term, value in one.items() if term in other)


def centrality(vectors: Sequence[Vector], preferences: Sequence[float]) -> list[float]:
    """Return the centrality of each vector, at most 1; the random walk starts by preference."""
    total = sum(preferences)
    start = [preference / total for preference in preferences]
    masses, scores = _masses(vectors, [1.0] * len(vectors)), start
    degrees = [similarity(one, masses) or 1.0 for one in vectors]
    for _ in range(_STEPS):
        checkpoint()
        parts = [score / degree for score, degree in zip(scores, degrees, strict=True)]
        masses = _masses(vectors, parts)
        scores = [
            (1 - _DAMPING) * first + _DAMPING * similarity(one, masses)
            for first, one in zip(start, vectors, strict=True)
        ]
    highest = max(scores, default=0.0) or 1.0
    return [score / highest for score in scores]


def _masses(vectors: Sequence[Vector], parts: Sequence[float]) -> Vector:
    masses: Vector = defaultdict(float)
    for one, part in zip(vectors, parts, strict=True):
        for term, value in one.items():
            masses[term] += value * part
    return masses


def sentence_scores(
    sentences: Sequence[Sentence], vectors: Sequence[Vector], topic: Vector
) -> list[float]:
    """Score sentences by centrality, similarity to a topic (may be empty), and length."""
    preferences = [1.0 + 20 * similarity(one, topic) for one in vectors]
    lengths = [min(1.0, len(sentence.terms) / _FEW_TERMS) for sentence in sentences]
    return list(map(mul, centrality(vectors, preferences), lengths))


def pick(scores: Sequence[float], vectors: Sequence[Vector], count: int) -> list[int]:
    """Return the places of up to `count` high scores that differ and are spread out, in order.

    Maximal marginal relevance (Carbonell and Goldstein 1998), by words and by place.
    """
    penalties = [0.0] * len(scores)
    reach = max(1.0, len(scores) / max(1, count))
    chosen: list[int] = []
    while len(chosen) < min(count, len(scores)):
        checkpoint()
        open_places = [place for place in range(len(scores)) if place not in chosen]
        best = max(open_places, key=lambda place: scores[place] - penalties[place])
        chosen.append(best)
        for place in open_places:
            near = max(0.0, 1 - abs(place - best) / reach)
            alike = similarity(vectors[place], vectors[best])
            penalties[place] = max(penalties[place], _REDUNDANCY * alike + _NEARNESS * near)
    return sorted(chosen)
