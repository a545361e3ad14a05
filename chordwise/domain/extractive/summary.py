"""Extractive summary: the central sentences of a text, spread over it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from chordwise.domain import grounding, json_values, words
from chordwise.domain.analyses.summary import MAX_FINDINGS, Summary
from chordwise.domain.analysis import claimed_number, gather_objects, round_robin
from chordwise.domain.analysis_tasks import AnalysisTask
from chordwise.domain.extractive import ranking
from chordwise.domain.extractive.sentences import MAX_QUOTE_CHARACTERS, Sentence, sentences
from chordwise.domain.json_values import JsonObject, JsonValue

MAX_CONFIDENCE = 4
_FEWEST_FINDINGS = 3
_SENTENCES_PER_FURTHER_FINDING = 10
_MAX_CANDIDATES = 800
_MAX_CONCLUSIONS = 3
_FIELD = re.compile(r"[^.:!?\n]{1,40}:[*_]*+\s")
_SENTENCE_ENDS = tuple(".!?…\u3002\uff01\uff1f\u0964\u061f")
_CONCLUDES = re.compile(
    r"\b(?:in (?:conclusion|summary|closing)|to (?:conclude|summarize|sum up)|(?:we|i) conclude"
    r"|concludes? that|the conclusion is)\b",
    re.IGNORECASE,
)


def analyze(task: AnalysisTask) -> JsonObject:
    """Summarize a chunk; a repeated sentence, such as a page header, counts once."""
    by_text = {one.text.casefold(): one for one in reversed(sentences(task.text))}
    found = list(by_text.values())[::-1]
    count = min(MAX_FINDINGS, _FEWEST_FINDINGS + len(found) // _SENTENCES_PER_FURTHER_FINDING)
    chosen = _central(found, count, task.options.instructions)
    quotes = [one.text for one in chosen] or [task.text.strip()[:MAX_QUOTE_CHARACTERS]]
    conclusions = [one.text for one in found if _CONCLUDES.search(one.text)]
    return {
        "main_topic": _topic(found, task.options.instructions),
        "key_findings": [{"finding": quote, "quote": quote} for quote in quotes],
        "conclusions": list(conclusions[-_MAX_CONCLUSIONS:]),
        "confidence": _confidence(found),
    }


def synthesize(task: AnalysisTask) -> JsonObject:
    """Rank the findings of all chunks together and keep the most central ones."""
    merged = Summary().merge(task.answers, task.options)
    findings = _grounded_findings(task.answers)
    texts = [json_values.text(item.get("quote")) for item in findings]
    quotes = [
        Sentence(text=text, start_char=index, terms=tuple(words.terms(text)))
        for index, text in enumerate(texts)
    ]
    chosen = _central(quotes, MAX_FINDINGS, task.options.instructions)
    kept: list[JsonValue] = [findings[one.start_char] for one in chosen]
    answer: JsonObject = {
        "main_topic": _topic(quotes, task.options.instructions),
        "key_findings": kept or merged["key_findings"],
        "conclusions": merged["conclusions"],
        "confidence": min(MAX_CONFIDENCE, round(claimed_number(merged)) or 1),
    }
    return grounding.without_spans(answer)


def _central(found: Sequence[Sentence], count: int, instructions: str) -> list[Sentence]:
    weights = ranking.inverse_document_frequencies([one.terms for one in found])
    vectors = [ranking.vector(one.terms, weights) for one in found]
    topic = ranking.vector(words.terms(instructions), weights)
    scores = ranking.sentence_scores(found, vectors, topic)
    return [found[place] for place in ranking.pick(scores, vectors, count)]


def _topic(found: Sequence[Sentence], instructions: str) -> str:
    ended = (one for one in found if one.text.rstrip("\"'”’)]*_").endswith(_SENTENCE_ENDS))
    whole = [one for one in ended if not _FIELD.match(one.text)]
    central = _central(whole or found, 1, instructions)
    return central[0].text if central else "The text has no sentences."


def _grounded_findings(answers: Sequence[JsonObject]) -> list[JsonObject]:
    found = round_robin(gather_objects(answers, "key_findings"), _MAX_CANDIDATES)
    by_quote = {json_values.text(item.get("quote")): item for item in reversed(found)}
    return [item for item in reversed(by_quote.values()) if item.get("grounded") is not False]


def _confidence(found: Sequence[Sentence]) -> int:
    read = [word for one in found for word in words.words(one.text)]
    is_known = words.is_english(read) and len(found) > MAX_FINDINGS
    return 1 + (len(found) >= _FEWEST_FINDINGS) + 2 * is_known
