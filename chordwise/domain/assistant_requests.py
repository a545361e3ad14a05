"""Detection of requests to an assistant in a text about something else.

A candidate is a sentence that begins like a request, with a verb or as a question. A linear model
weighs its form, and how few of its words occur in the surrounding text. `benchmarks/flags.py` fits
the model to planted and clean texts: no single feature is sufficient.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from math import log10

from chordwise.domain.words import LEXICON, STOPWORDS

_DATA = tomllib.loads(
    resources.files(__package__).joinpath("assistant_requests.toml").read_text("utf-8")
)
_VERBS: dict[str, str] = {
    word: kind for kind, listed in _DATA["verbs"].items() for word in listed.split()
}
_NO_VERBS = STOPWORDS | frozenset(_DATA["words"]["no_verbs"].split())
WEIGHTS: Mapping[str, float] = _DATA.get("weights", {})
"""The weight of each feature of a request; a request is flagged if the sum is above 0."""
_ASK = frozenset(_DATA["words"]["ask"].split())
_ASK_IF = frozenset(_DATA["words"]["ask_if"].split())
_MIN_SENTENCE, _MAX_SENTENCE = 8, 400
_BULLET = " \t-*•#\"'“”(>0123456789.)"
_PLAIN_BULLET = f"{_BULLET}|"
# A sentence, with its first word as group 1 if only bullets are before it. A full stop, also one of
# a bullet, does not end a sentence if a character follows.
_SENTENCE = re.compile(
    rf"(?:(?!\.)(?:[{re.escape(_BULLET.replace('.', ''))}]|\.(?=[^\s.?!]))*+([^\W\d_]++)[^\n.?!|]*+"
    r"|[^\n.?!|]++)(?:[.?!](?=[^\s.?!])[^\n.?!|]*)*+[.?!\"'”’)]*+"
)
_POLITE = re.compile(
    r"(?:(?:please|kindly|now|also|then|and|next|finally|first|instead|hey|hi|ok|okay|so|but|just"
    r"|only|always|(?:can|could|would|will) you|(?:i(?:'d| would) like|i want|i need)(?: you)? to"
    r"|your (?:only |new |next )?(?:task|job|goal) is(?: now)? to"
    r"|you (?:must|should|have to|need to|are to)|make sure to|be sure to|help (?:me|us)(?: to)?)"
    r"[,:]?\s+){0,3}",
    re.IGNORECASE,
)
# The possible first words of a polite beginning; most sentences begin with none of them.
_POLITE_WORD = re.compile(
    r"(?:please|kindly|now|also|then|and|next|finally|first|instead|hey|hi|ok|okay|so|but|just|only"
    r"|always|can|could|would|will|i|your?|make|be|help)\b",
    re.IGNORECASE,
)
_HEAD = re.compile(r"[^\W\d_]+(?=[ ,'’]|-moi\b|$)")
_NO_VERB_ENDINGS = ("ing", "ed", "ly", "tion", "ness", "ment", "s", "er")
_VERB_ENDINGS = ("ise", "ize", "ify", "ate")
# The text after the first word.
_OBJECTS = {
    "possessive": r" (?:my|our|his|her|their|its)\b| [a-z]+['’]s\b",
    "your": r" your\b",
    "noun": r" (?:(?:and|or|of|is|was|were|are|has|had|have|will|would|shall|may|can|by)\b"
    r"|[-–—&/=+:(])",
    "determiner": r" (?:an?|the|this|these|those|each|every|all|any|some|no)\b",
    "pronoun": r" (?:me|us|it|them|him|her)\b",
    "quote": r" [\"“'‘]",
    "foreign": r"(?:-moi)? (?:eine?n?|der|die|das|den|deine?|mir|une?|la|les?|ta|ton|tes|el|los"
    r"|las|una|tus?)\b",
    "number": r" (?:two|three|four|five|six|seven|eight|nine|ten|\d+)\b",
    "particle": r" (?:how|what|who|why|when|where|whether|which|if|that|to|like|as|only|with"
    r"|about|for|in|on|up|out|down|at|from)\b",
}
_OF_NOUN = re.compile(
    r" (?:of|dated|\d{3,} (?:of|from|dated)|is|was|were|are|has|had|have)\b", re.IGNORECASE
)
"""Follows the noun in “Order 4711 of May” and “Report of the board”, and not a verb."""
_INVERTED = re.compile(r" (?:at|in|on|by|during) [^.!?\n]{1,80} (?:was|were)\b", re.IGNORECASE)
"""Follows the first word of “Present at the meeting were Anna and Berta”, which is no verb."""
_TITLE = re.compile(
    r"(?:report (?:on|from|into|by)|research (?:on|into)|request (?:for|from)|answers? to"
    r"|guide (?:to|for)) [^.!?:\n]{1,80}",
    re.IGNORECASE,
)
"""Nouns with their prepositions, without a mark at the end, as in “Report on the accounts”."""
OF_VERBS = ("possessive", "your", "determiner", "pronoun", "quote")
"""The kinds of text that only follow verbs."""
_OBJECT_OF_VERB = re.compile("|".join(_OBJECTS[name] for name in OF_VERBS), re.IGNORECASE)
_OBJECT = re.compile(
    "|".join(f"(?P<{name}>{pattern})" for name, pattern in _OBJECTS.items()), re.IGNORECASE
)
LANGUAGE = (
    "(?:english|french|spanish|german|italian|chinese|japanese|russian|arabic|dutch|korean|latin)"
)
# Words counted in the sentence, up to twice; lower case is faster to search than ignoring case.
_WORDS = {
    "pointing": "it|its|he|she|they|them|him|her|his|their|that|those|these|this|we|our|there|such"
    "|section|above|below|herein|following",
    "to_me": "me|my|i|us",
    "text": r"answers?|responses?|repl(?:y|ies)|outputs?|summar(?:y|ies)|texts?"
    r"|sentences?|paragraphs?|words?|letters?|alphabet|messages?|phrases?|poems?|haikus?"
    r"|stor(?:y|ies)|jokes?|riddles?|essays?|songs?|emojis?|emoticons?|ciphers?|base ?-?\d+"
    r"|binary|hex(?:adecimal)?|morse|rot13|code|scripts?|function|program|snippet|tweets?"
    r"|slogans?|sentiment|tone|emotions?|prompts?|instructions?|json|language|"
    f"{LANGUAGE}",
    "user": "users?|readers?|people|everyone|everybody|the (?:public|audience|victim)",
}
_COUNTED = re.compile(
    rf"\b(?:{'|'.join(f'(?P<{name}>{words})' for name, words in _WORDS.items())})\b"
)
_QUOTED = re.compile(r"[\"“'‘][^\"”’'\n]{2,}[\"”’']")
_NAME = re.compile(r" [A-Z][a-z]+")
_GENERIC = re.compile(
    r"how (?:(?:can|do|should|could|to|would) (?:i|we|you|one)|long|many|much|far|old|does|did|is"
    r"|are)\b|wh\w+(?:['’]s| (?:is|are|was|were|did|does|do|steps|would)) ",
    re.IGNORECASE,
)
_CONTENT_WORD = re.compile(r"[^\W\d_]{3,}")
_PREFIX = 5
_AROUND = 1_500
_FEW_WORDS = 15
_MIN_WORDS_AROUND = 5
_MAX_NEW = 4


@dataclass(frozen=True, slots=True)
class RequestSentence:
    """A sentence like a request: its span, the text after its verb, and its non-zero features."""

    start: int
    end: int
    behind: str
    features: Mapping[str, float]


def find_requests(content: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of requests that are unrelated to the surrounding text."""

    def missing_of(request: RequestSentence, usual: Mapping[str, float]) -> float:
        return -WEIGHTS["bias"] - _weight(usual) - _weight(request.features)

    # More sentences only lower the weight, so what cannot be flagged any more is not kept.
    requests, usual = candidates(content, lambda *pair: missing_of(*pair) < _MAX_STRANGENESS)
    for request in requests:
        missing = missing_of(request, usual)
        strange = strangeness(content, request) if missing < _MAX_STRANGENESS else None
        if strange is not None and _weight(strange) > missing:
            yield request.start, request.end


def candidates(
    content: str, is_kept: Callable[[RequestSentence, Mapping[str, float]], bool] = lambda *_: True
) -> tuple[list[RequestSentence], Mapping[str, float]]:
    """Return the sentences that begin like requests, and the features that they share.

    Their number is a feature: in a text full of requests none looks unrelated. `is_kept` decides on
    a request by the features that the text up to it has.
    """
    first, _, _ = content.lstrip().partition("\n")
    usual = {"sentences": 0.0, "requests": 0.0, "answers": float(first.rstrip().endswith("?"))}
    sentences, count, requests = 0, 0, []
    has_cells = "|" in content
    opening = len(content) - len(content.lstrip(f"{_BULLET}\n"))
    for match in _SENTENCE.finditer(content):
        start, end = match.span()
        if end - start > _MIN_SENTENCE:
            sentences += 1
            word = match[1]
            following = word and (_following(word) if len(word) <= _LONGEST_WORD else _ANYTHING)
            if not following or not following.match(content, match.end(1), end):
                continue
            is_cell = has_cells and "|" in (content[start - 1 : start], content[end : end + 1])
            if request := None if is_cell else _request(content, match, opening):
                count += "indented" not in request.features
                usual |= {"sentences": log10(sentences + 1), "requests": log10(count + 1)}
                if is_kept(request, usual):
                    requests.append(request)
    return requests, usual | {"sentences": log10(sentences + 1)}


def strangeness(content: str, request: RequestSentence) -> dict[str, float] | None:
    """Return how many words of a request its surrounding text lacks, `None` without such a text."""
    before = content[max(0, request.start - _AROUND) : request.start]
    around = f"{before} {content[request.end : request.end + _AROUND]}".lower()
    words_around = _count(_stems(around), _FEW_WORDS)
    if words_around < _MIN_WORDS_AROUND:
        return None
    stems = set(_stems(request.behind.lower()))
    new = sum(not _has_stem(around, stem) for stem in stems)
    return {
        "share_new": new / max(1, len(stems)),
        "all_new": float(new == len(stems) > 0),
        "new": min(_MAX_NEW, new),
        "few_around": float(words_around < _FEW_WORDS),
    }


def _stems(small: str) -> Iterator[str]:
    for match in _CONTENT_WORD.finditer(small):
        if match[0] not in STOPWORDS:
            yield match[0][:_PREFIX]


def _count(stems: Iterable[str], limit: int) -> int:
    distinct: set[str] = set()
    for stem in stems:
        distinct.add(stem)
        if len(distinct) == limit:
            break
    return len(distinct)


def _has_stem(small: str, stem: str) -> bool:
    """Return whether a text has a stem; faster than computing all of its stems."""
    at = small.find(stem)
    while at >= 0:
        before = small[at - 1 : at]
        word = _CONTENT_WORD.match(small, at)
        is_inside = before.isalnum() and not before.isdecimal()
        if not is_inside and word and word[0][:_PREFIX] == stem and word[0] not in STOPWORDS:
            return True
        at = small.find(stem, at + 1)
    return False


def _weight(features: Mapping[str, float]) -> float:
    return sum(WEIGHTS.get(name, 0.0) * value for name, value in features.items())


_STRANGE = ("share_new", "all_new")
_MAX_STRANGENESS = sum(max(0.0, WEIGHTS.get(name, 0.0)) for name in _STRANGE) + _MAX_NEW * max(
    0.0, WEIGHTS.get("new", 0.0)
)


def _without_a_letter(word: str) -> Iterator[str]:
    """Yield a word and its forms without one letter; a spelling mistake shares one of them."""
    yield word
    yield from (word[:at] + word[at + 1 :] for at in range(1, len(word)))


_SHORTEST_MISSPELLED = 5
_OTHERS = _NO_VERBS.union(*(listed for lists in LEXICON.values() for listed in lists.values()))
_MISSPELLED = frozenset(
    form for verb in _VERBS if len(verb) >= _SHORTEST_MISSPELLED for form in _without_a_letter(verb)
)


@lru_cache(maxsize=10_000)
def _is_verb(word: str) -> bool:
    """Return whether a lower-case word is a verb, perhaps with one wrong letter."""
    is_other = word in _OTHERS or word.endswith(_NO_VERB_ENDINGS)
    if word in _VERBS or is_other or len(word) < _SHORTEST_MISSPELLED:
        return word in _VERBS
    return not _MISSPELLED.isdisjoint(_without_a_letter(word))


# Longer words are not kept in the cache.
_LONGEST_WORD = 30
_ANYTHING = re.compile("")


@lru_cache(maxsize=10_000)
def _following(word: str) -> re.Pattern[str] | None:
    """Return what must follow this word at the beginning of a request; `None` if none begins so."""
    if _POLITE_WORD.match(word):
        return _ANYTHING
    word = word.lower()
    if _is_verb(word) or word in _ASK or word in _ASK_IF:
        return _ANYTHING
    if word in _NO_VERBS or word.endswith(_NO_VERB_ENDINGS):
        return None
    return _ANYTHING if word.endswith(_VERB_ENDINGS) else _OBJECT_OF_VERB


def _request(content: str, sentence: re.Match[str], opening: int) -> RequestSentence | None:
    start, end = sentence.span()
    begins = sentence.start(1)
    body = content[begins : min(end, start + _MAX_SENTENCE)].rstrip()
    polite = _POLITE.match(body) if _POLITE_WORD.match(body) else None
    begin = polite.end() if polite else 0
    head = _HEAD.match(body, begin) or _HEAD.match(body)
    kind = _kind(body, head) if head and not body.isupper() else ""
    if not head or not kind:
        return None
    behind = body[head.end() :]
    features = {kind: 1.0, **_form(body, head, behind), **_place(content, begins, end)}
    if 0 < begin <= head.start():
        features["polite"] = 1.0
    if kind.startswith("ask") and begins == opening:
        features["first_question"] = 1.0
    return RequestSentence(begins, begins + len(body), behind, features)


def _kind(body: str, head: re.Match[str]) -> str:
    word = head[0].lower()
    if _is_verb(word):
        after = head.end()
        is_noun = _OF_NOUN.match(body, after) or _TITLE.fullmatch(body, head.start())
        return "" if is_noun or _INVERTED.match(body, after) else _VERBS.get(word, "misspelled")
    if word in _ASK or word in _ASK_IF:
        is_question = body.rstrip("\"'”’)").endswith("?") or _QUOTED.search(body)
        return ("ask" if word in _ASK else "ask_if") if is_question else ""
    if word in _NO_VERBS or word.endswith(_NO_VERB_ENDINGS):
        return ""
    has_object = _OBJECT_OF_VERB.match(body, head.end())
    return "unknown" if has_object or word.endswith(_VERB_ENDINGS) else ""


def _form(body: str, head: re.Match[str], behind: str) -> dict[str, float]:
    words = len(body.split())
    following = _OBJECT.match(behind)
    small = behind.lower()
    counts: dict[str, float] = {}
    for word in _COUNTED.finditer(small):
        counts[str(word.lastgroup)] = min(2.0, counts.get(str(word.lastgroup), 0.0) + 1.0)
    for name, pattern, text in (("quoted", _QUOTED, small), ("name", _NAME, behind)):
        if count := len(pattern.findall(text)):
            counts[name] = min(2.0, count)
    traits = (
        (f"then_{following.lastgroup if following else 'nothing'}", True),
        ("capital", body[0].isupper()),
        ("all_capitals", head[0].isupper() and len(head[0]) > 1),
        ("ends", body.endswith((".", "?", "!", '"', "”", "'", ")"))),
        ("asks", body.endswith("?")),
        ("generic", _GENERIC.match(body, head.start())),
        ("short", words < _SHORT),
        ("long", words > _LONG),
        ("markup", _MARKUP.search(body)),
    )
    return {**dict.fromkeys((name for name, holds in traits if holds), 1.0), **counts}


_SHORT, _LONG = 4, 25
_MARKUP = re.compile(r"`|\]\(|\w/\w|\w\(|__|\]\[")


_FULL_LINE, _LONGEST_MARK = 40, 200
_UNFINISHED = re.compile(r"[^\n]{30,}[a-z,]")


def _place(content: str, start: int, end: int) -> dict[str, float]:
    earliest = max(0, start - _LONGEST_MARK)
    line = content.rfind("\n", earliest, start) + 1 or earliest
    before = content[line:start]
    if before:
        marks = ("marked", "indented") if before[0] in " \t" else ("marked",)
        return {} if before.strip(_PLAIN_BULLET) else dict.fromkeys(marks, 1.0)
    is_line = content[end : end + 1] in ("", "\n")
    above = content[max(0, line - _FULL_LINE) : max(0, line - 1)]
    traits = (("line", is_line), ("goes_on", _UNFINISHED.fullmatch(above)))
    return {name: 1.0 for name, holds in traits if holds}
