"""The words and short phrases that a text repeats most."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from chordwise.domain.extractive import words
from chordwise.domain.extractive.checkpoints import checkpoint
from chordwise.domain.extractive.words import FOREIGN_FUNCTION_WORDS, GENERIC_WORDS, STOPWORDS

# Marks of transcripts and templates, such as {vocalsound} and <br>.
_MARKUP = re.compile(r"\{\w+\}|</?\w+>")
Phrase = tuple[str, ...]

_LONGEST_PHRASE = 3
_FEWEST_REPETITIONS = 2
_WEIGHT_PER_FURTHER_WORD = 0.6
_SHORTEST_FOREIGN_WORD = 4
_COMMON_SHARE = 0.2
_FEW_PIECES = 10


def key_phrases(pieces: Sequence[str], limit: int) -> list[str]:
    """Return up to `limit` phrases in lower case, the weightiest first, none inside another.

    `pieces` are sentences or other parts that no phrase reaches across. In languages other than
    English, words that stand in many pieces are taken for function words.
    """
    word_lists = [words.words(_MARKUP.sub(" ", piece)) for piece in pieces]
    excluded = _excluded(word_lists)
    counts: Counter[Phrase] = Counter()
    surfaces: dict[Phrase, str] = {}
    for listed in word_lists:
        for run in _runs(listed, excluded):
            for phrase, surface in _phrases(run):
                counts[phrase] += 1
                surfaces.setdefault(phrase, surface)
    ranked = sorted(counts, key=lambda phrase: -_weight(phrase, counts[phrase]))
    return [surfaces[phrase] for phrase in _apart(ranked, limit)]


def _excluded(word_lists: Sequence[list[str]]) -> frozenset[str]:
    everything = [word for listed in word_lists for word in listed]
    if words.is_english(everything):
        return STOPWORDS | GENERIC_WORDS
    short = {
        word
        for word in everything
        if len(word) < _SHORTEST_FOREIGN_WORD and not words.is_unspaced(word)
    }
    spread = Counter(word for listed in word_lists for word in dict.fromkeys(listed))
    most = len(word_lists) * _COMMON_SHARE if len(word_lists) >= _FEW_PIECES else len(word_lists)
    ordinary = STOPWORDS | FOREIGN_FUNCTION_WORDS | short
    return ordinary | {word for word, count in spread.items() if count > most}


def _runs(listed: Sequence[str], excluded: frozenset[str]) -> Iterable[list[str]]:
    """Yield the stretches of content words; ideographs count as pairs, each on its own."""
    checkpoint()
    run: list[str] = []
    for word in listed:
        if words.is_unspaced(word):
            yield from ([pair] for pair in words.pairs(word))
        elif word not in excluded and len(word) > 1 and not word[0].isdigit():
            run.append(word)
            continue
        yield run
        run = []
    yield run


def _phrases(run: Sequence[str]) -> Iterable[tuple[Phrase, str]]:
    for start in range(len(run)):
        for end in range(start + 1, min(start + _LONGEST_PHRASE, len(run)) + 1):
            stems = tuple(words.stem(word) for word in run[start:end])
            yield stems, " ".join(run[start:end])


def _weight(phrase: Phrase, count: int) -> float:
    if len(phrase) > 1 and count < _FEWEST_REPETITIONS:
        return 0.0
    return count * (1 + _WEIGHT_PER_FURTHER_WORD * (len(phrase) - 1))


def _apart(ranked: Iterable[Phrase], limit: int) -> list[Phrase]:
    """Keep the first `limit` phrases that share no word."""
    kept: list[Phrase] = []
    used: set[str] = set()
    for phrase in ranked:
        if len(kept) == limit:
            break
        if used.isdisjoint(phrase):
            kept.append(phrase)
            used.update(phrase)
    return kept
