"""Reasoning by surface marks: connectives and figures tell premises from conclusions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from chordwise.domain import grounding, json_values
from chordwise.domain.analyses.reasoning import Reasoning
from chordwise.domain.extractive import cues, ranking
from chordwise.domain.extractive.checkpoints import checkpoint
from chordwise.domain.extractive.sentences import MAX_QUOTE_CHARACTERS, Sentence, sentences
from chordwise.domain.extractive.summary import distinct
from chordwise.domain.json_values import JsonObject, JsonValue
from chordwise.domain.tasks import AnalysisTask

MAX_CONFIDENCE = 3
_MAX_SCORE = 6
_CHUNK_STEPS = 8
_FEWEST_STEPS = 3
_MARK_BONUS = 2.0
_LAST_PART = 0.7
_DENSE = 0.4
_DISCLAIMER = (
    "Only surface marks were counted (connectives, figures, named sources); "
    "whether the argument holds was not judged."
)
# The first pattern that matches names the role; the stronger marks come first.
_ROLES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("conclusion", cues.FINAL),
    ("inference", cues.INFERENCE),
    ("evidence", cues.EVIDENCE),
    ("premise", cues.PREMISE),
    ("evidence", cues.FIGURE),
    ("counterargument", cues.COUNTERARGUMENT),
)


class _Step(NamedTuple):
    quote: str
    role: str
    mark: str


def analyze(task: AnalysisTask) -> JsonObject:
    """Mark the steps of a chunk's argument by their connectives."""
    found = distinct(sentences(task.text))
    marked = [_step(one, place / len(found)) for place, one in enumerate(found)]
    steps = _most_telling(found, marked)
    roles = Counter(step.role for step in marked if step.mark)
    return {
        "logical_flow": [_shown(step) for step in steps] or [_unmarked(task.text)],
        **_scores(marked, roles),
        "weaknesses": list(_weaknesses(task.text, roles)),
        "gaps": list(_gaps(task.text, roles)),
    }


def synthesize(task: AnalysisTask) -> JsonObject:
    """Merge the chunks, and keep only the remarks on what is missing that no chunk disproves."""
    merged = Reasoning().merge(task.answers, task.options)
    for name in ("weaknesses", "gaps"):
        remarks = [json_values.strings(answer.get(name)) for answer in task.answers]
        shared = [remark for remark in remarks[0] if all(remark in other for other in remarks)]
        merged[name] = list(shared)
    merged["overall_assessment"] = f"{len(task.answers)} parts of the text. {_DISCLAIMER}"
    merged["confidence"] = min(MAX_CONFIDENCE, round(json_values.number(merged["confidence"]) or 1))
    return {name: grounding.without_spans(value) for name, value in merged.items()}


def _step(sentence: Sentence, position: float) -> _Step:
    checkpoint()
    if position >= _LAST_PART and (match := cues.CONCLUSION.search(sentence.text)):
        return _Step(sentence.text, "conclusion", match.group())
    for role, pattern in _ROLES:
        if match := pattern.search(sentence.text):
            return _Step(sentence.text, role, match.group())
    return _Step(sentence.text, "premise", "")


def _most_telling(found: Sequence[Sentence], marked: Sequence[_Step]) -> list[_Step]:
    weights = ranking.inverse_frequencies([one.terms for one in found])
    vectors = [ranking.vector(one.terms, weights) for one in found]
    scores = [
        score + _MARK_BONUS * bool(step.mark)
        for score, step in zip(ranking.sentence_scores(found, vectors, {}), marked, strict=True)
    ]
    count = sum(bool(step.mark) for step in marked)
    places = ranking.pick(scores, vectors, min(max(count, _FEWEST_STEPS), _CHUNK_STEPS))
    return [marked[place] for place in places]


def _shown(step: _Step) -> JsonValue:
    mark = " ".join(step.mark.split())
    reason = f"marked by “{mark}”" if mark else "a central sentence without a mark"
    return {"step": f"{step.role.capitalize()} ({reason})", "role": step.role, "quote": step.quote}


def _unmarked(text: str) -> JsonValue:
    quote = text.strip()[:MAX_QUOTE_CHARACTERS]
    return {"step": "No sentence to mark", "role": "premise", "quote": quote}


def _scores(marked: Sequence[_Step], roles: Counter[str]) -> JsonObject:
    total = len(marked) or 1
    connected = (roles["inference"] + roles["conclusion"] + roles["premise"]) / total
    backed = roles["evidence"] / total
    counts = ", ".join(f"{count} {role}" for role, count in sorted(roles.items())) or "none"
    return {
        "argument_strength": _score(connected + backed / 2),
        "evidence_quality": {
            "score": _score(backed),
            "assessment": f"{roles['evidence']} of {len(marked)} sentences name figures, examples "
            "or sources; their quality was not judged.",
        },
        "overall_assessment": f"Sentences with a mark: {counts}. {_DISCLAIMER}",
        "confidence": MAX_CONFIDENCE - 1 if roles else 1,
    }


def _score(density: float) -> int:
    return 1 + round(min(1.0, density / _DENSE) * (_MAX_SCORE - 1))


def _weaknesses(text: str, roles: Counter[str]) -> list[str]:
    remarks = {
        "No sentence is marked as evidence by its words.": not roles["evidence"],
        "Hedging words are frequent.": _is_frequent(cues.HEDGE, text),
        "Absolute words (“always”, “never”, “must”) are frequent.": _is_frequent(
            cues.ABSOLUTE, text
        ),
    }
    return [remark for remark, holds in remarks.items() if holds]


def _gaps(text: str, roles: Counter[str]) -> list[str]:
    remarks = {
        "No counterargument is marked by its words.": not roles["counterargument"],
        "No conclusion is marked by its words.": not roles["conclusion"],
        "No inference is marked by its words.": not roles["inference"],
        "No source is named in a recognizable way.": not cues.SOURCE.search(text),
    }
    return [remark for remark, holds in remarks.items() if holds]


def _is_frequent(pattern: re.Pattern[str], text: str) -> bool:
    """Tell whether a mark stands more than twice, and once in 1,000 characters or more."""
    count = sum(1 for _ in pattern.finditer(text))
    return count > 2 and count * 1000 > len(text)  # noqa: PLR2004  # named in the docstring
