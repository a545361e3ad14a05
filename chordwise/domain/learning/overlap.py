"""How much of a summary that somebody wrote stands in ours: ROUGE-1 and ROUGE-L.

Lin, “ROUGE: A Package for Automatic Evaluation of Summaries”, 2004, sections 2 and 3; as F1, and
without stemming, which would be one language's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from chordwise.domain import json_values
from chordwise.domain.extractive import words
from chordwise.domain.json_values import JsonObject

_MOST_WORDS = 2_000
"""What is compared of a text: the longest common subsequence takes the product of two lengths."""


def summary_text(output: JsonObject) -> str:
    """Return what a summary says in its own words, as one text."""
    findings = json_values.objects(output.get("key_findings"))
    parts = [
        json_values.text(output.get("main_topic")),
        *(json_values.text(each.get("finding")) for each in findings),
        *json_values.strings(output.get("conclusions")),
    ]
    return " ".join(part for part in parts if part)


def rouge_1(text: str, reference: str) -> float:
    """Return the F1 of the words that both have, each as often as both do."""
    found, wanted = _words(text), _words(reference)
    return _f1((Counter(found) & Counter(wanted)).total(), len(found), len(wanted))


def rouge_l(text: str, reference: str) -> float:
    """Return the F1 of the longest common subsequence of words."""
    found, wanted = _words(text), _words(reference)
    return _f1(_longest_common(found, wanted), len(found), len(wanted))


def _words(text: str) -> list[str]:
    """Return the words; of scripts without spaces, every character."""
    found = words.words(text)
    split = [list(word) if words.is_unspaced(word) else [word] for word in found]
    return [part for parts in split for part in parts][:_MOST_WORDS]


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    row = [0] * (len(other) + 1)
    for word in one:
        diagonal = 0
        for place, candidate in enumerate(other, start=1):
            above = row[place]
            row[place] = diagonal + 1 if word == candidate else max(above, row[place - 1])
            diagonal = above
    return row[-1]


def _f1(shared: int, found: int, wanted: int) -> float:
    return 2 * shared / (found + wanted) if found + wanted else 0.0
