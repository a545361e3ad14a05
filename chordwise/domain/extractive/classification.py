"""Classification by the words of text, labels and topics, and by meaning with an encoder."""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist

from chordwise.domain import grounding, json_values, words
from chordwise.domain.analyses.classification import Classification
from chordwise.domain.analysis import claimed_number, mean
from chordwise.domain.analysis_tasks import AnalysisOptions, AnalysisTask
from chordwise.domain.extractive import forms, ranking, sentiment
from chordwise.domain.extractive.answer_context import checkpoint, similarities
from chordwise.domain.extractive.sentences import Sentence, sentences
from chordwise.domain.json_values import JsonObject
from chordwise.domain.words import LEXICON

MAX_CONFIDENCE = 0.6
_LEAST_CONFIDENCE = 0.05
_TITLE_WEIGHT = 5.0
_OWN_WORD = 9.0
_DESCRIBING = 0.5
_ENOUGH_EVIDENCE = 6.0
_LEXICAL_WEIGHT = 2.0
_MEANING_WEIGHT = 10.0
# The distribution of 3,600 cosines of labels with unrelated sentences.
_UNRELATED = NormalDist(0.06, 0.074)
_COMPARED = 4
_BY_CHANCE = 0.7
_UNKNOWN = (0.0, "")
_MAX_FEATURES = 5
_SHORTEST_ABBREVIATION = 3
NO_LABEL_FITS = "No label fits: nothing in the text is similar enough to a label."
_DISCLAIMER = "The built-in extractive model compares words; it does not read."
_WITHOUT_LABELS: JsonObject = {
    "primary_label": None,
    "secondary_label": None,
    "confidence": _LEAST_CONFIDENCE,
    "features": [],
    "uncertainty_factors": [_DISCLAIMER, "No labels were given to compare the text with."],
}
_FEELINGS = frozenset({"positive", "negative", "neutral", "mixed"})
_NONE_OF_THEM = frozenset({"other", "none", "unknown", "miscellaneous", "oos", "out_of_scope"})
# The separators of the phrases of a label or of its description.
_JOINT = re.compile(r"[/,;&\n]|\.\s|[\W_](?:and|or)[\W_]", re.IGNORECASE)
_RELATED = {
    name: listed for topic, listed in LEXICON["topics"].items() for name in words.terms(topic)
}
_DESCRIPTION = re.compile(r"^[^\w\n]*+([^:\n]{1,80}):([^\n]++)", re.MULTILINE)


_Phrases = Mapping[str, Sequence[str]]  # by label


def analyze(task: AnalysisTask) -> JsonObject:
    """Choose one of the labels for a chunk; without labels, return an answer without a label."""
    passage = sentences(task.text)
    labels = tuple(dict.fromkeys(task.options.labels))
    if not labels:
        return dict(_WITHOUT_LABELS)
    if _FEELINGS.issuperset(label.casefold() for label in labels):
        return _by_feeling(labels, task)
    names = {label: _phrases(label) or [label] for label in labels}
    described = _described(labels, task.options)
    parts = _contributions(names, described, passage)
    near = _nearest(names, described, passage)
    totals = {label: sum(added.values()) for label, added in parts.items()}
    if near:
        share = _LEXICAL_WEIGHT / max(_ENOUGH_EVIDENCE, *totals.values())
        totals = {label: share * totals[label] + near.get(label, _UNKNOWN)[0] for label in labels}
    ranked = sorted(
        labels, key=lambda label: (-totals[label], label.casefold() not in _NONE_OF_THEM)
    )
    _, nearest = near.get(ranked[0], _UNKNOWN)
    features = _features(nearest, parts[ranked[0]], passage)
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
    """Let each chunk vote for its label; earlier chunks weigh more, because they contain titles."""
    votes: list[JsonObject] = [
        {**answer, "secondary_label": None, "confidence": claimed_number(answer) / (1 + index)}
        for index, answer in enumerate(task.answers)
    ]
    merged = Classification().merge(votes, task.options)
    merged["confidence"] = min(MAX_CONFIDENCE, claimed_number(merged))
    return grounding.without_spans(merged)


def _described(labels: Sequence[str], options: AnalysisOptions) -> _Phrases:
    """A description may also be a line of the instructions, “label: …”."""
    described: dict[str, list[str]] = defaultdict(list)
    lines = _DESCRIPTION.findall(options.instructions)
    for label, description in [*options.label_descriptions.items(), *lines]:
        described[label.strip().casefold()] += _phrases(description)
    related = {one: itertools.chain(*map(_related, words.terms(one))) for one in labels}
    return {one: list(dict.fromkeys([*described[one.casefold()], *related[one]])) for one in labels}


def _phrases(text: str) -> list[str]:
    phrases = (part.replace("_", " ").strip() for part in _JOINT.split(text))
    return [phrase for phrase in phrases if words.terms(phrase)]


def _related(term: str) -> Iterator[str]:
    for name, listed in _RELATED.items():
        if name == term or (len(term) >= _SHORTEST_ABBREVIATION and name.startswith(term)):
            yield from listed


def _contributions(
    names: _Phrases, described: _Phrases, passage: Sequence[Sentence]
) -> dict[str, dict[str, float]]:
    """A label's own phrases count most in the title and in the first sentences."""
    title = forms.title(passage) or ("", "")
    terms = [frozenset(sentence.terms) for sentence in passage]
    early = [(_OWN_WORD / (1 + index), bag) for index, bag in enumerate(terms)]
    early.append((_OWN_WORD * _TITLE_WEIGHT, frozenset(words.terms(title[0]))))
    parts = [*_parts(names, early), *_parts(described, [(_DESCRIBING, bag) for bag in terms])]
    added: dict[str, dict[str, float]] = {label: defaultdict(float) for label in names}
    for label, term, part in parts:
        added[label][term] += part
    return added


def _parts(
    phrases: _Phrases, places: Sequence[tuple[float, frozenset[str]]]
) -> Iterator[tuple[str, str, float]]:
    """`places` are weighted terms of a text's parts; half of a phrase at one counts an eighth."""
    split = {
        name: [frozenset(words.terms(phrase)) for phrase in listed]
        for name, listed in phrases.items()
    }
    rarity = ranking.inverse_document_frequencies(
        [frozenset().union(*listed) for listed in split.values()]
    )
    known = frozenset().union(*(terms for _, terms in places))
    for label, phrase in [(label, phrase) for label, listed in split.items() for phrase in listed]:
        checkpoint()
        seen = phrase & known
        whole = sum(rarity[term] for term in phrase)
        evidence = 0.0
        for weight, terms in places if seen else ():
            evidence += weight * (sum(rarity[term] for term in phrase & terms) / whole) ** 3
        part = whole * math.sqrt(evidence) / max(1, len(phrase) * len(seen))
        yield from ((label, term, part) for term in seen)


def _nearest(
    names: _Phrases, described: _Phrases, passage: Sequence[Sentence]
) -> dict[str, tuple[float, str]]:
    """Return for each label the sentence that is nearest in meaning, and its contribution.

    The similarity is the mean of the cosine with the whole description and the highest cosine with
    a phrase of it; the contribution is its excess over the highest one expected by chance. Empty
    without an encoder.
    """
    texts = [sentence.text for sentence in passage[:_COMPARED]]
    phrases = {label: described[label] or names[label] for label in names}
    compared = [len(texts) * count for count in (len(names), sum(map(len, phrases.values())))]
    by_chance = mean([_UNRELATED.inv_cdf(_BY_CHANCE ** (1 / max(1, count))) for count in compared])
    nearest = {}
    for label, listed in phrases.items():
        about = f"This is about {', '.join(names[label])}. {', '.join(described[label])}"
        whole = similarities(about.strip(), texts)
        if whole and label.casefold() not in _NONE_OF_THEM:
            parts = zip(*(similarities(phrase, texts) for phrase in listed), strict=True)
            near = [mean([one, max(cosines)]) for one, cosines in zip(whole, parts, strict=True)]
            weight, quote = max(zip(near, texts, strict=True))
            nearest[label] = (_MEANING_WEIGHT * (weight - by_chance), quote)
    return nearest


def _features(
    nearest: str, parts: Mapping[str, float], passage: Sequence[Sentence]
) -> Iterator[JsonObject]:
    if nearest:
        yield {"feature": "nearest in meaning", "quote": nearest}
    for term in sorted(parts, key=lambda term: -parts[term]):
        if standing := [sentence for sentence in passage if term in sentence.terms]:
            count = sum(sentence.terms.count(term) for sentence in standing)
            feature = f"words that begin with “{term}” ({count})"
            yield {"feature": feature, "quote": standing[0].text}


def _by_feeling(labels: Sequence[str], task: AnalysisTask) -> JsonObject:
    """Return the sentiment of a chunk as a label; all labels name a sentiment."""
    felt = sentiment.analyze(task)
    by_name = {label.casefold(): label for label in labels}
    nearest = "negative" if str(felt["score"]).startswith("-") else "positive"
    quotes = [entry["quote"] for entry in json_values.objects(felt["sentences"])[:_MAX_FEATURES]]
    return {
        "primary_label": by_name.get(str(felt["label"]), by_name.get(nearest, labels[0])),
        "secondary_label": None,
        "confidence": felt["confidence"],
        "features": [{"feature": "words of praise or blame", "quote": quote} for quote in quotes],
        "uncertainty_factors": [_DISCLAIMER],
    }
