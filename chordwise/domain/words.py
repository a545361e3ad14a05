"""Words: splits text into words and terms, in all scripts, and recognizes words that negate."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from typing import TypeAlias

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003134f"
)
"""Scripts without spaces between words: Thai to Lao, Burmese, Khmer, kana and ideographs."""
# Vowel signs and accents, which are part of a word but not letters.
_MARKS = (
    "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u06d6-\u06dc\u0900-\u0963\u0966-\u0dff"
)
JOINTS = re.compile(r"(?<=[a-z])(?=[A-Z])|[_-]+")
"""What joins the words of a name such as `due_date` and `dueDate`."""
WORD = re.compile(f"[{UNSPACED}]+|[^\\W_{UNSPACED}](?:[^\\W_{UNSPACED}]|[{_MARKS}]|['’](?=\\w))*")
_RUN = re.compile(f"[{UNSPACED}]")
_VOWELS = frozenset("aeiouy")
_SHORTEST_STEM = 3
_SHORTEST_WITH_ENDING = 4
_SHORTEST_WITH_NOUN_ENDING = 7
_ENGLISH_SHARE = 0.2
WordLists: TypeAlias = dict[str, dict[str, tuple[str, ...]]]
"""Lists of words by table and name."""


def word_lists(file_name: str) -> WordLists:
    """Return the lists of a TOML file of this package; an underscore is a blank within a name."""
    tables = tomllib.loads(resources.files(__package__).joinpath(file_name).read_text("utf-8"))
    return {
        table: {
            name: tuple(word.replace("_", " ") for word in listed.split())
            for name, listed in lists.items()
        }
        for table, lists in tables.items()
    }


LEXICON = word_lists("lexicon.toml")
"""The word lists of `lexicon.toml`, by table and name."""
STOPWORDS = frozenset(LEXICON["words"]["function"])


def words(text: str) -> list[str]:
    """Return the lower-case words in order; a run of an unspaced script is one word."""
    return [word.replace("’", "'") for word in WORD.findall(text.lower())]


def terms(text: str) -> list[str]:
    """Return the terms for comparison: stems of content words, pairs of ideographs."""
    return [term for word in words(text) for term in _terms_of(word)]


def is_english(some_words: Iterable[str]) -> bool:
    """Return whether words are English, by the share of English function words."""
    known = [word in STOPWORDS for word in some_words]
    return sum(known) > len(known) * _ENGLISH_SHARE


def is_unspaced(word: str) -> bool:
    """Return whether a word is a run of a script without spaces between words."""
    return bool(_RUN.match(word))


def _terms_of(word: str) -> Iterable[str]:
    if word in STOPWORDS:
        return ()
    if is_unspaced(word):  # the overlapping pairs of its characters
        return [word[index : index + 2] for index in range(max(1, len(word) - 1))]
    return (stem(word),) if len(word) > 1 else ()


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """Remove the commonest English endings, so that inflected forms of a word match."""
    word = word.removesuffix("'s").removesuffix("'")
    if len(word) < _SHORTEST_WITH_ENDING or not word.isascii():
        return word
    if word.endswith("ies"):
        word = word[:-3] + "y"
    elif word.endswith(("sses", "xes", "ches", "shes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    return _without_suffix(word)


def _without_suffix(word: str) -> str:
    for ending in ("ing", "ed", "ly"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) >= _SHORTEST_STEM and not _VOWELS.isdisjoint(rest):
            is_doubled = rest[-1] == rest[-2] and rest[-1] not in "aeiousl"
            return _unified(rest[:-1] if is_doubled else rest)
    if len(word) >= _SHORTEST_WITH_NOUN_ENDING and word.endswith(("tion", "sion")):
        return word[:-3]
    is_noun = len(word) > _SHORTEST_WITH_NOUN_ENDING + 1 and word.endswith("ment")
    return _unified(word[:-4] if is_noun else word)


def _unified(word: str) -> str:
    return word[:-1] if word.endswith("e") and len(word) > _SHORTEST_STEM else word


# Words that negate or limit a sentence

_NEGATIONS = word_lists("negations.toml")
_NEGATING = [word for language in _NEGATIONS["words"].values() for word in language]
_PHRASES = [f" {phrase} " for phrase in _NEGATIONS["phrases"]["all"]]
_PARTS = [part for language in _NEGATIONS["parts"].values() for part in language]
_LETTERS = re.compile(r"[^\W\d_]+")
_WHOLE = frozenset(word for word in _NEGATING if not word.endswith("*"))
_BEGINNINGS = tuple(word[:-1] for word in _NEGATING if word.endswith("*"))
_LIMITED = re.compile(
    r"(?<![^\W\d_])(?:no(?!\.\s?\d)|non(?!-)|mai(?!\s\d)|without(?! limitation)"
    r"|not(?!(?<=but not) limited to))(?![^\W\d_])"
    r"|n['’]t(?![^\W\d_])|(?<![^\W\d_])n['’]"
)


def denies(text: str) -> bool:
    """Return whether a text has a word that negates, limits or refuses the statement around it."""
    plain = unicodedata.normalize("NFKC", text).lower()
    spelled = _LETTERS.findall(plain)
    padded = f" {' '.join(spelled)} "
    return (
        any(word in _WHOLE or word.startswith(_BEGINNINGS) for word in spelled)
        or any(phrase in padded for phrase in _PHRASES)
        or any(part in plain for part in _PARTS)
        or _LIMITED.search(plain) is not None
    )
