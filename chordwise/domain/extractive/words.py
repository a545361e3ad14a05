"""Cutting text into words and terms, in scripts with and without spaces between words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from chordwise.domain.extractive.stopwords import STOPWORDS

# Thai to Lao, Burmese, Khmer, kana and ideographs: written without spaces between the words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003134f"
)
# Vowel signs and accents, which belong to the word although they are no letters.
_MARKS = (
    "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u06d6-\u06dc\u0900-\u0963\u0966-\u0dff"
)
WORD = re.compile(
    f"[{_UNSPACED}]+|[^\\W_{_UNSPACED}](?:[^\\W_{_UNSPACED}]|[{_MARKS}]|['’](?=\\w))*"
)
_RUN = re.compile(f"[{_UNSPACED}]")
_VOWELS = frozenset("aeiouy")
_SHORTEST_STEM = 3
_SHORTEST_WITH_ENDING = 4
_SHORTEST_WITH_SUFFIX = 6
_SHORTEST_WITH_MENT = 8
_ENGLISH_SHARE = 0.2


def words(text: str) -> list[str]:
    """Return the words in lower case, in order; a run of an unspaced script is one word."""
    return [word.replace("’", "'") for word in WORD.findall(text.lower())]


def terms(text: str) -> list[str]:
    """Return what a text can be compared by: stems of content words, pairs of ideographs."""
    return [term for word in words(text) for term in _terms_of(word)]


def is_english(some_words: Iterable[str]) -> bool:
    """Tell English from other languages by its function words."""
    listed = list(some_words)
    known = sum(word in STOPWORDS for word in listed)
    return known > len(listed) * _ENGLISH_SHARE


def is_unspaced(word: str) -> bool:
    """Tell whether a word is a run of a script that puts no spaces between words."""
    return bool(_RUN.match(word))


def _terms_of(word: str) -> Iterable[str]:
    if word in STOPWORDS:
        return ()
    if is_unspaced(word):
        return pairs(word)
    return (stem(word),) if len(word) > 1 else ()


def pairs(run: str) -> list[str]:
    """Return the overlapping pairs of characters of a run; a single one stands alone."""
    return [run[place : place + 2] for place in range(max(1, len(run) - 1))]


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """Take the commonest English endings off, so that forms of a word meet."""
    word = word.removesuffix("'s").removesuffix("'")
    if len(word) < _SHORTEST_WITH_ENDING or not word.isascii():
        return word
    return _without_suffix(_without_plural(word))


def _without_plural(word: str) -> str:
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "zes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _without_suffix(word: str) -> str:
    for ending in ("ing", "ed", "ly"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) >= _SHORTEST_STEM and not _VOWELS.isdisjoint(rest):
            return _unified(_undoubled(rest))
    if len(word) > _SHORTEST_WITH_SUFFIX and word.endswith(("tion", "sion")):
        return word[:-3]
    if len(word) > _SHORTEST_WITH_MENT and word.endswith("ment"):
        return _unified(word[:-4])
    return _unified(word)


def _undoubled(word: str) -> str:
    doubled = word[-1] == word[-2] and word[-1] not in "aeiousl"
    return word[:-1] if doubled else word


def _unified(word: str) -> str:
    return word[:-1] if word.endswith("e") and len(word) > _SHORTEST_STEM else word
