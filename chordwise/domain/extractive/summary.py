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
    by_text = {sentence.text.casefold(): sentence for sentence in reversed(sentences(task.text))}
    passage = list(by_text.values())[::-1]
    count = min(MAX_FINDINGS, _FEWEST_FINDINGS + len(passage) // _SENTENCES_PER_FURTHER_FINDING)
    chosen = _central(passage, count, task.options.instructions)
    quotes = [sentence.text for sentence in chosen] or [task.text.strip()[:MAX_QUOTE_CHARACTERS]]
    conclusions = [sentence.text for sentence in passage if _CONCLUDES.search(sentence.text)]
    return {
        "main_topic": _topic(passage, task.options.instructions),
        "key_findings": [{"finding": quote, "quote": quote} for quote in quotes],
        "conclusions": list(conclusions[-_MAX_CONCLUSIONS:]),
        "confidence": _confidence(passage),
    }


def synthesize(task: AnalysisTask) -> JsonObject:
    """Rank the findings of all chunks together and keep the most central ones."""
    merged = Summary().merge(task.answers, task.options)
    listed = round_robin(gather_objects(task.answers, "key_findings"), _MAX_CANDIDATES)
    by_quote = {json_values.text(item.get("quote")): item for item in reversed(listed)}
    findings = [one for one in reversed(by_quote.values()) if one.get("grounded") is not False]
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


def _central(passage: Sequence[Sentence], count: int, instructions: str) -> list[Sentence]:
    weights = ranking.inverse_document_frequencies([sentence.terms for sentence in passage])
    vectors = [ranking.vector(sentence.terms, weights) for sentence in passage]
    topic = ranking.vector(words.terms(instructions), weights)
    scores = ranking.sentence_scores(passage, vectors, topic)
    return [passage[place] for place in ranking.pick(scores, vectors, count)]


def _topic(passage: Sequence[Sentence], instructions: str) -> str:
    ended = (one for one in passage if one.text.rstrip("\"'”’)]*_").endswith(_SENTENCE_ENDS))
    whole = [sentence for sentence in ended if not _FIELD.match(sentence.text)]
    central = _central(whole or passage, 1, instructions)
    return central[0].text if central else "The text has no sentences."


def _confidence(passage: Sequence[Sentence]) -> int:
    read = [word for sentence in passage for word in words.words(sentence.text)]
    is_known = words.is_english(read) and len(passage) > MAX_FINDINGS
    return 1 + (len(passage) >= _FEWEST_FINDINGS) + 2 * is_known
