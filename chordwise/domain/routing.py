"""Selection of a model by complexity and cost: the tiers to ask, and the best answer."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from chordwise.domain import json_values, tokens, words
from chordwise.domain.analyses import extraction
from chordwise.domain.analysis import analysis_for
from chordwise.domain.analysis_tasks import AnalysisTask, AnalysisType
from chordwise.domain.answers import Answer
from chordwise.domain.json_values import JsonObject
from chordwise.domain.tiers import Tier


def tier_for(score: float, medium_from: float, large_from: float) -> Tier:
    """Return the tier for a question of this complexity (0 to 1)."""
    if score >= large_from:
        return Tier.LARGE
    return Tier.MEDIUM if score >= medium_from else Tier.SMALL


def steps(minimum: Tier, available: Collection[Tier]) -> tuple[Tier, ...]:
    """Return the available tiers to ask: the `minimum` tier and those above it, or the largest."""
    tiers = list(Tier)
    upward = tuple(tier for tier in tiers[tiers.index(minimum) :] if tier in available)
    return upward or tuple(tier for tier in tiers if tier in available)[-1:]


def best(answers: Sequence[Answer]) -> Answer:
    """Return the answer with the highest quality, then confidence; of equal ones the last."""
    return max(reversed(answers), key=lambda answer: (answer.quality, answer.confidence))


WEIGHTS = {
    "length": 0.13,
    "readability": 0.15,
    "figures": 0.10,
    "language": 0.12,
    "analysis": 0.25,
    "demand": 0.15,
    "parts": 0.10,
}
"""The weight of each part of the estimate; their sum is 1 (docs/models.md)."""
_LONG_TEXT_TOKENS = 4_000
_LONG_WORD_LETTERS = 6
_EASY_LIX, _HARD_LIX = 20.0, 70.0
_MANY_FIGURES_SHARE = 0.15
_MANY_ROWS_SHARE = 0.3
_MANY_FIELDS = 30
_MANY_INSTRUCTION_WORDS = 150
_MANY_PARTS = 12
# The language of fewer words cannot be determined.
_MIN_WORDS = 20
_UNKNOWN = 0.5
_SENTENCE_END = re.compile(
    r"(?<![.!?…\u3002\uff01\uff1f\u0964\u061f])[.!?…\u3002\uff01\uff1f\u0964\u061f]++"
    r"(?=[\s\"')\]”’]|$)|\n\s*\n"
)
_TABLE_ROW = re.compile(r"\t|\|.*\||\S(?: {3,}\S+){2}")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Complexity:
    """An estimate by parts, each from 0 (easy) to 1 (hard) and weighted by `WEIGHTS`."""

    length: float
    readability: float
    figures: float
    language: float
    analysis: float
    demand: float
    parts: float

    @property
    def score(self) -> float:
        """Return the weighted sum, 0 to 1."""
        return round(sum(share * float(getattr(self, name)) for name, share in WEIGHTS.items()), 3)


def complexity(task: AnalysisTask) -> Complexity:
    """Estimate the difficulty of a question from its text or answers, its language and its task."""
    values = (value for _, value in json_values.walk(list(task.answers)))
    text = task.text or "\n\n".join(value for value in values if isinstance(value, str))
    wording = words.words(text)
    return Complexity(
        length=_share(tokens.weigh(text), _LONG_TEXT_TOKENS),
        readability=_readability(text, wording),
        figures=0.0 if task.answers else _figures(text, wording),
        language=_language(wording),
        analysis=analysis_for(task.analysis_type).complexity,
        demand=_demand(task),
        parts=_share(len(task.answers), _MANY_PARTS),
    )


def _share(value: float, of: float) -> float:
    return min(1.0, value / of)


def _readability(text: str, wording: Sequence[str]) -> float:
    """Return LIX (Björnsson, Läsbarhet, 1968), scaled: 20 is a children's book, 60 scholarly."""
    if not wording:
        return 0.0
    if sum(not word.isascii() and words.is_unspaced(word) for word in wording) * 2 > len(wording):
        return _UNKNOWN
    sentences = max(1, len(_SENTENCE_END.findall(text)))
    long = sum(len(word) > _LONG_WORD_LETTERS for word in wording)
    lix = len(wording) / sentences + 100 * long / len(wording)
    return min(1.0, max(0.0, (lix - _EASY_LIX) / (_HARD_LIX - _EASY_LIX)))


def _figures(text: str, wording: Sequence[str]) -> float:
    if not wording:
        return 0.0
    numbers = sum(word[0].isdecimal() for word in wording) / len(wording)
    lines = [line for line in text.splitlines() if line.strip()]
    rows = sum(bool(_TABLE_ROW.search(line)) for line in lines) / max(1, len(lines))
    return max(_share(numbers, _MANY_FIGURES_SHARE), _share(rows, _MANY_ROWS_SHARE))


def _language(wording: Sequence[str]) -> float:
    """Return 0 for English, 0.5 for other languages in Latin letters, and 1 for other scripts."""
    letters = sum(len(word) for word in wording if word[0].isalpha())
    latin = sum(len(word) for word in wording if _LATIN.match(word))
    if latin * 2 < letters:
        return 1.0
    return 0.0 if len(wording) < _MIN_WORDS or words.is_english(wording) else _UNKNOWN


def _demand(task: AnalysisTask) -> float:
    options = task.options
    fields = len(options.labels) + _field_count(options.schema)
    if task.analysis_type == AnalysisType.EXTRACTION and options.schema is None:
        fields += len(extraction.items(options))
    instructions = len(options.instructions.split())
    return min(1.0, _share(fields, _MANY_FIELDS) + _share(instructions, _MANY_INSTRUCTION_WORDS))


def _field_count(schema: JsonObject | None) -> int:
    objects = (value for _, value in json_values.walk(schema or {}) if isinstance(value, dict))
    properties = (value.get("properties") for value in objects)
    return sum(len(members) for members in properties if isinstance(members, dict))
