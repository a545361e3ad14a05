"""Classification by a text's words, the labels' words and their topics, and meaning if known."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist

from chordwise.domain import grounding, json_values
from chordwise.domain.analyses.analysis import claimed
from chordwise.domain.analyses.classification import Classification
from chordwise.domain.extractive import forms, ranking, sentiment, words
from chordwise.domain.extractive.checkpoints import checkpoint
from chordwise.domain.extractive.sentences import Sentence, sentences
from chordwise.domain.extractive.words import FOREIGN_FUNCTION_WORDS, LEXICON
from chordwise.domain.json_values import JsonObject
from chordwise.domain.tasks import AnalysisOptions, AnalysisTask

MAX_CONFIDENCE = 0.6
_LEAST_CONFIDENCE = 0.05
_UNLABELLED_CONFIDENCE = 0.2
_MIN_VOTING_CONFIDENCE = 1 / 3
_TITLE_WEIGHT = 5.0
_OWN_WORD = 3.0
_ENOUGH_EVIDENCE = 6.0
_LEXICAL_WEIGHT = 3.0
_MEANING_WEIGHT = 10.0
# The cosines of labels with sentences that are about something else, 3,600 of them.
_UNRELATED = NormalDist(0.06, 0.074)
_COMPARED = 4
_UNKNOWN = (0.0, "")
_MAX_FEATURES = 5
_SHORTEST_ABBREVIATION = 3
_SHORTEST_BEGINNING = 4
_SHORTEST_ROOT = 6
NO_LABEL_FITS = "No label fits: the text has none of their words."
_DISCLAIMER = "The built-in extractive model compares words; it does not read."
_FEELINGS = frozenset({"positive", "negative", "neutral", "mixed"})
_NONE_OF_THEM = frozenset({"other", "none", "unknown", "miscellaneous", "oos", "out_of_scope"})
_JOINT = re.compile(r"[/,&]|[\W_](?:and|or)[\W_]", re.IGNORECASE)
_RELATED = {
    name: frozenset(words.terms(" ".join(listed)))
    for topic, listed in LEXICON["topics"].items()
    for name in words.terms(topic)
}
_DESCRIPTION = re.compile(r"^[^\w\n]*+([^:\n]{1,80}):([^\n]++)", re.MULTILINE)


def analyze(task: AnalysisTask) -> JsonObject:
    """Classify a chunk, by the user's labels or by the words that stand out."""
    found = sentences(task.text)
    labels = tuple(dict.fromkeys(task.options.labels))
    if not labels:
        return _named_by_words(found)
    if _FEELINGS.issuperset(label.casefold() for label in labels):
        return _by_feeling(labels, task)
    described = _descriptions(task.options)
    parts = _contributions(labels, found, described)
    near = _nearest(labels, found, described)
    totals = {label: sum(own.values()) for label, own in parts.items()}
    if near:
        share = _LEXICAL_WEIGHT / max(_ENOUGH_EVIDENCE, *totals.values())
        totals = {each: share * totals[each] + near.get(each, _UNKNOWN)[0] for each in labels}
    ranked = sorted(
        labels, key=lambda label: (-totals[label], label.casefold() not in _NONE_OF_THEM)
    )
    nearest = near.get(ranked[0], _UNKNOWN)[1]
    means: JsonObject = {"feature": "nearest in meaning", "quote": nearest}
    features = itertools.chain([means] * bool(nearest), _features(parts[ranked[0]], found))
    best, second = totals[ranked[0]], totals[ranked[1]] if len(ranked) > 1 else 0.0
    margin = (best - second) / best if best > 0 else 0.0
    confidence = MAX_CONFIDENCE * margin * min(1.0, best / _ENOUGH_EVIDENCE)
    fits = best > 0 or ranked[0].casefold() in _NONE_OF_THEM
    return {
        "primary_label": ranked[0] if fits else None,
        "secondary_label": ranked[1] if second > 0 else None,
        "confidence": round(max(_LEAST_CONFIDENCE, confidence), 3),
        "features": list(itertools.islice(features, _MAX_FEATURES)),
        "uncertainty_factors": [
            _DISCLAIMER,
            *[NO_LABEL_FITS] * (best <= 0),
            *["The second label is close."] * (0 < best < second * 2),
        ],
    }


def synthesize(task: AnalysisTask) -> JsonObject:
    """Let the chunks vote, the first ones most, since a document's title names what it is.

    Second choices of very unsure chunks have no say: one counts half of what the first leaves open.
    """
    votes: list[JsonObject] = []
    for place, answer in enumerate(task.answers):
        is_sure = claimed(answer) >= _MIN_VOTING_CONFIDENCE
        secondary = answer.get("secondary_label") if is_sure else None
        confidence = claimed(answer) / (1 + place)
        votes.append({**answer, "secondary_label": secondary, "confidence": confidence})
    merged = Classification().merge(votes, task.options)
    merged["confidence"] = min(MAX_CONFIDENCE, claimed(merged))
    return json_values.as_object(grounding.without_spans(merged))


def _descriptions(options: AnalysisOptions) -> dict[str, str]:
    """Return what labels mean: their descriptions, and lines of the instructions “label: …”."""
    lines = [*options.label_descriptions.items(), *_DESCRIPTION.findall(options.instructions)]
    described: dict[str, str] = defaultdict(str)
    for label, description in lines:
        described[label.strip().casefold()] += f" {description.strip()}"
    return described


def _contributions(
    labels: Sequence[str], found: Sequence[Sentence], described: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Return what the terms of a text add to labels: their own words, and those that go with them.

    Those are the words of their descriptions, and of common topics.
    """
    phrases = {label: _phrases(label) for label in labels}
    own = {label: {term for each in phrases[label] for term in each} for label in labels}
    shared = Counter(term for terms in own.values() for term in terms)
    related = {
        label: {
            *(word for term in own[label] if shared[term] == 1 for word in _related(term)),
            *words.terms(described.get(label.casefold(), "")),
        }
        for label in labels
    }
    own_weights = ranking.inverse_frequencies(list(own.values()))
    related_weights = ranking.inverse_frequencies(list(related.values()))
    places = _weighted_places(found)
    counts = Counter(term for one in found for term in one.terms)
    parts = {label: _own_parts(phrases[label], places, own_weights) for label in labels}
    for label in labels:
        for term in related[label].intersection(counts):
            parts[label][term] += related_weights[term] * math.log1p(counts[term])
    return parts


def _nearest(
    labels: Sequence[str], found: Sequence[Sentence], described: Mapping[str, str]
) -> dict[str, tuple[float, str]]:
    """Return which of the first sentences is nearest to a label in meaning, and what that adds.

    That is how far its cosine lies above the highest one to be expected by chance. Empty without
    an encoder. A label for the rest has no meaning of its own.
    """
    texts = [one.text for one in found[:_COMPARED]]
    by_chance = _UNRELATED.inv_cdf(0.5 ** (1 / max(1, len(labels) * len(texts))))
    nearest = {}
    for label in labels:
        about = f"This is about {label.replace('_', ' ')}. {described.get(label.casefold(), '')}"
        near = ranking.similarities(about.strip(), texts)
        if near and label.casefold() not in _NONE_OF_THEM:
            weights = (_MEANING_WEIGHT * (one - by_chance) for one in near)
            nearest[label] = max(zip(weights, texts, strict=True))
    return nearest


def _phrases(label: str) -> list[list[str]]:
    """Return the terms of a label, those of alternatives apart: “kitchen and dining” are two."""
    alternatives = [list(dict.fromkeys(words.terms(each))) for each in _JOINT.split(label)]
    return [each for each in alternatives if each] or [[label.casefold()]]


def _related(term: str) -> Iterator[str]:
    """Yield the words that go with a label's word; “tech” is taken for “technology”."""
    for name, listed in _RELATED.items():
        if name == term or (len(term) >= _SHORTEST_ABBREVIATION and name.startswith(term)):
            yield from listed


def _weighted_places(found: Sequence[Sentence]) -> list[tuple[float, frozenset[str]]]:
    """Return the terms of the sentences with weights: the title most, then the first ones."""
    name = forms.title(found)
    titled = [(_TITLE_WEIGHT, frozenset(words.terms(name[0])))] if name else []
    return titled + [(1 / (1 + place), frozenset(one.terms)) for place, one in enumerate(found)]


def _own_parts(
    phrases: Sequence[Sequence[str]],
    places: Sequence[tuple[float, frozenset[str]]],
    rarity: Mapping[str, float],
) -> dict[str, float]:
    """Return what a label's own words add; a sentence with one of two words counts an eighth."""
    known = {term for _, terms in places for term in terms}
    parts: dict[str, float] = defaultdict(float)
    for phrase in phrases:
        checkpoint()
        alike = {term: {each for each in known if _is_alike(term, each)} for term in phrase}
        whole = sum(rarity[term] for term in phrase)
        evidence = 0.0
        for weight, terms in places:
            hit = sum(rarity[term] for term in phrase if not alike[term].isdisjoint(terms))
            evidence += weight * (hit / whole) ** 3
        seen = set().union(*alike.values())
        part = _OWN_WORD * whole / len(phrase) * math.sqrt(evidence)
        parts.update({each: parts[each] + part / len(seen) for each in seen})
    return parts


def _is_alike(term: str, other: str) -> bool:
    """Tell whether one is the other's beginning: “distributor” and “distribution” share a stem."""
    if len(term) >= _SHORTEST_BEGINNING and other.startswith(term):
        return True
    return term == other or (len(other) >= _SHORTEST_ROOT and term.startswith(other))


def _features(parts: Mapping[str, float], found: Sequence[Sentence]) -> Iterator[JsonObject]:
    """Yield the terms that add most, each with the first sentence that has it."""
    for term in sorted(parts, key=lambda term: -parts[term]):
        if standing := [one for one in found if term in one.terms]:
            count = sum(one.terms.count(term) for one in standing)
            feature = f"words that begin with “{term}” ({count})"
            yield {"feature": feature, "quote": standing[0].text}


def _by_feeling(labels: Sequence[str], task: AnalysisTask) -> JsonObject:
    """Answer for labels that name a sentiment with the lexicon's verdict."""
    felt = sentiment.analyze(task)
    by_name = {label.casefold(): label for label in labels}
    nearest = "negative" if str(felt["score"]).startswith("-") else "positive"
    quotes = [one["quote"] for one in json_values.objects(felt["sentences"])[:_MAX_FEATURES]]
    return {
        "primary_label": by_name.get(str(felt["label"]), by_name.get(nearest, labels[0])),
        "secondary_label": None,
        "confidence": felt["confidence"],
        "features": [{"feature": "words of praise or blame", "quote": each} for each in quotes],
        "uncertainty_factors": [_DISCLAIMER],
    }


def _named_by_words(found: Sequence[Sentence]) -> JsonObject:
    """Name a text by the two words that most sentences have, since no labels were given."""
    spread = Counter(word for one in found for word in dict.fromkeys(words.words(one.text)))
    telling = (word for word, _ in spread.most_common() if words.terms(word) and word.isalpha())
    named = [word for word in telling if word not in FOREIGN_FUNCTION_WORDS][:2]
    quotes = [one.text for one in found if named and named[0] in one.text.lower()][:1]
    return {
        "primary_label": named[0] if named else None,
        "secondary_label": named[1] if named[1:] else None,
        "confidence": _UNLABELLED_CONFIDENCE if named else _LEAST_CONFIDENCE,
        "features": [{"feature": f"“{named[0]}” stands out", "quote": quote} for quote in quotes],
        "uncertainty_factors": [
            _DISCLAIMER,
            "No labels were given; these are words that stand out in the text.",
        ],
    }
