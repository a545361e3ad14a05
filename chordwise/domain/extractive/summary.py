"""A summary made of a text's own sentences: the central ones, spread over the text.

Measured as in `tests/integration/test_extractive_corpora.py`, the share of a human summary's
terms (stemmed content words) that the findings have: 150 SciTLDR abstracts 0.67 (as many first
sentences 0.59), 21 QMSum meetings 0.21 (0.06). On the same texts a ranking by mean word frequency
had 0.63 and 0.08, one by the sum of logarithmic frequencies 0.65 and 0.24, which is no better a
ranking but a liking for long sentences (F1 0.20 both on the meetings, 0.26 and 0.25 on abstracts).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from chordwise.domain import grounding, json_values
from chordwise.domain.analyses.analysis import gather_objects, take_turns
from chordwise.domain.analyses.summary import MAX_FINDINGS, Summary
from chordwise.domain.extractive import ranking, words
from chordwise.domain.extractive.cues import CONCLUSION, FINAL
from chordwise.domain.extractive.sentences import MAX_QUOTE_CHARACTERS, Sentence, sentences
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.tasks import AnalysisTask

MAX_CONFIDENCE = 4
_FEWEST_FINDINGS = 3
_SENTENCES_PER_FURTHER_FINDING = 10
_MAX_CANDIDATES = 800
_MAX_CONCLUSIONS = 3
_LAST_PART = 0.7
_MAX_TOPIC = 300


def analyze(task: AnalysisTask) -> JsonObject:
    """Summarize a chunk."""
    found = distinct(sentences(task.text))
    chosen = _central(found, _count_for(len(found)), task.options.instructions)
    return {
        "main_topic": _topic(found, task.options.instructions),
        "key_findings": [_finding(one.text, one.text) for one in chosen]
        or [_finding(*[task.text.strip()[:MAX_QUOTE_CHARACTERS]] * 2)],
        "conclusions": list(_conclusions(found)),
        "confidence": _confidence(found),
    }


def synthesize(task: AnalysisTask) -> JsonObject:
    """Rank the findings of all chunks among each other, so that five cover the document."""
    merged = Summary().merge(task.answers, task.options)
    findings = _grounded_findings(task.answers)
    quotes = [_quotation(item, place) for place, item in enumerate(findings)]
    chosen = _central(quotes, MAX_FINDINGS, task.options.instructions)
    kept = [findings[one.start_char] for one in chosen] or json_values.objects(
        merged.get("key_findings")
    )
    return {
        "main_topic": _topic(quotes, task.options.instructions),
        "key_findings": [grounding.without_spans(item) for item in kept],
        "conclusions": merged["conclusions"],
        "confidence": min(MAX_CONFIDENCE, round(json_values.number(merged["confidence"]) or 1)),
    }


def distinct(found: Sequence[Sentence]) -> list[Sentence]:
    """Drop repeated sentences, such as page headers."""
    return list({one.text.casefold(): one for one in reversed(found)}.values())[::-1]


def _count_for(available: int) -> int:
    further = available // _SENTENCES_PER_FURTHER_FINDING
    return min(MAX_FINDINGS, _FEWEST_FINDINGS + further)


def _central(found: Sequence[Sentence], count: int, instructions: str) -> list[Sentence]:
    weights = ranking.inverse_frequencies([one.terms for one in found])
    vectors = [ranking.vector(one.terms, weights) for one in found]
    topic = ranking.vector(words.terms(instructions), weights)
    scores = ranking.sentence_scores(found, vectors, topic)
    return [found[place] for place in ranking.pick(scores, vectors, count)]


def _finding(finding: str, quote: str) -> JsonValue:
    return {"finding": finding, "quote": quote}


def _topic(found: Sequence[Sentence], instructions: str) -> str:
    """Return the most central sentence."""
    central = _central(found, 1, instructions)
    return central[0].text[:_MAX_TOPIC] if central else "The text has no sentences."


def _grounded_findings(answers: Sequence[JsonObject]) -> list[JsonObject]:
    found = take_turns(gather_objects(answers, "key_findings"), _MAX_CANDIDATES)
    by_quote = {json_values.text(item.get("quote")): item for item in reversed(found)}
    return [item for item in reversed(by_quote.values()) if item.get("grounded") is not False]


def _quotation(item: JsonObject, place: int) -> Sentence:
    text = json_values.text(item.get("quote"))
    return Sentence(text=text, start_char=place, terms=tuple(words.terms(text)))


def _conclusions(found: Sequence[Sentence]) -> list[str]:
    """Return the last sentences that say they conclude, in order."""
    late = round(len(found) * _LAST_PART)
    said = [
        one.text
        for place, one in enumerate(found)
        if _concludes(one.text, CONCLUSION if place >= late else FINAL)
    ]
    return said[-_MAX_CONCLUSIONS:]


def _concludes(text: str, cue: re.Pattern[str]) -> bool:
    return bool(cue.search(text))


def _confidence(found: Sequence[Sentence]) -> int:
    """Claim more for texts with something to rank, and for English, whose stopwords are known."""
    read = [word for one in found for word in words.words(one.text)]
    return (
        1
        + (len(found) >= _FEWEST_FINDINGS)
        + 2 * words.is_english(read) * (len(found) > MAX_FINDINGS)
    )
