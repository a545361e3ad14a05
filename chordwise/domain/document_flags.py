"""Finds the passages of a document that speak to a model, or that could not be read."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from math import inf, log10
from typing import TypeAlias

from pydantic import TypeAdapter

from chordwise.domain.json_values import JsonValue

MAX_FLAGS_OF_KIND = 20
"""So many passages of each kind are kept of a document, the first ones."""
REASON = "suspicious_passages"
"""The code that `intakes.reason` has where passages of a document speak to a model."""
HINT = "Read these passages before you rely on the results (docs/formats.md, Suspicious passages)."
_MAX_EXCERPT = 120


class FlagKind(StrEnum):
    """What is suspicious about a passage.

    An order names the model or its instructions; a request is a task for an assistant that has
    nothing to do with the text around it. Illegible is what a transcriber marked as such.
    """

    ORDER = "order"
    REQUEST = "request"
    ROLE_MARK = "role_mark"
    ENCODED_TEXT = "encoded_text"
    HIDDEN_TEXT = "hidden_text"
    INVISIBLE_CHARACTERS = "invisible_characters"
    ILLEGIBLE = "illegible"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Flag:
    """A suspicious passage: characters `start_char` up to `end_char` of the stored text.

    Characters that were removed have no length there. `excerpt` is the beginning of what stands
    there, or what its encoding hides.
    """

    start_char: int
    end_char: int
    kind: FlagKind
    excerpt: str = ""


_STORED = TypeAdapter(tuple[Flag, ...])


def from_json(stored: JsonValue) -> tuple[Flag, ...]:
    """Return the flags that `documents.flags` holds, as their `json_values.plain`; null is none."""
    return _STORED.validate_python(stored or ())


def flags(
    content: str, unseen: Sequence[str] = (), removed: Sequence[tuple[int, str]] = ()
) -> tuple[Flag, ...]:
    """Return what is suspicious about a text, in its order, in a time linear to its length.

    `unseen` are the passages that cannot be seen in the file, in their order, `removed` the runs of
    invisible characters that normalization removed, and where they stood.
    """
    kinds = (
        _orders(content, FlagKind.ORDER, _ORDERS),
        _orders(content, FlagKind.ROLE_MARK, _ROLES),
        _requests(content),
        _encoded(content),
        _hidden(content, unseen),
        (_of_run(at, run) for at, run in removed),
        (
            _flag(content, FlagKind.ILLEGIBLE, *match.span())
            for match in _ILLEGIBLE.finditer(content)
        ),
    )
    return tuple(sorted(flag for found in kinds for flag in islice(found, MAX_FLAGS_OF_KIND)))


def review_reason(found: Sequence[Flag], unseen: str = "") -> str:
    """Say why a person should look at the document, behind what is said of its `unseen` text."""
    named = [each for each in found if not (unseen and each.kind in _UNSEEN)]
    if not named:
        return unseen
    first = min(named, key=lambda flag: flag.kind in _UNSEEN)
    shown = f"“{first.excerpt}” (" if first.excerpt else "("
    others = f" and {len(named) - 1} more" if len(named) > 1 else ""
    said = f"{shown}characters {first.start_char}–{first.end_char}){others}."
    return f"{unseen} The text has {_NAMES[first.kind]}: {said}".strip()


_UNSEEN = (FlagKind.HIDDEN_TEXT, FlagKind.INVISIBLE_CHARACTERS)
_NAMES = {
    FlagKind.ORDER: "an order to a model",
    FlagKind.REQUEST: "a request to an assistant",
    FlagKind.ROLE_MARK: "a mark of roles in a prompt",
    FlagKind.ENCODED_TEXT: "an encoded text",
    FlagKind.HIDDEN_TEXT: "a passage that cannot be seen",
    FlagKind.INVISIBLE_CHARACTERS: "invisible characters, which were removed",
    FlagKind.ILLEGIBLE: "a passage that could not be read",
}


def _flag(content: str, kind: FlagKind, start: int, end: int) -> Flag:
    excerpt = _shortened(content[start : min(end, start + 2 * _MAX_EXCERPT)])
    return Flag(kind=kind, start_char=start, end_char=end, excerpt=excerpt)


def _shortened(words: str) -> str:
    line = " ".join(words.split())
    return line if len(line) <= _MAX_EXCERPT else f"{line[: _MAX_EXCERPT - 1]}…"


_WRITTEN = re.IGNORECASE | re.MULTILINE
_Cue: TypeAlias = tuple[tuple[str, ...], re.Pattern[str]]
"""Words in small letters without one of which a text is not searched, and what is searched for."""


_MODEL = (
    r"(?:chat ?gpt|gpt-?\d\w*|llms?|claude|gemini|copilot|(?:large )?language models?"
    r"|a\.?i\.?(?: (?:language )?(?:models?|assistants?|agents?|systems?|reviewers?))?"
    r"|(?:virtual |digital )?assistants?|chat ?bots?|automated (?:reader|reviewer|system)s?)"
)
_MODEL_WORDS = (
    *("gpt", "llm", "claude", "gemini", "copilot", "language model", "ai ", "ai,"),
    *("ai.", "ai:", "ai\n", "a.i.", "assistant", "chatbot", "chat bot", "automated "),
)
_EARLIER = (
    r"(?:(?:all|any|every|everything|each|of|the|these|those|this|that|your|my|our|other|and|or"
    r"|previous(?:ly)?|prior|above|preceding|earlier|former|foregoing|initial|original|system"
    r"|existing|current|given|safety)\s+){0,6}"
)
_IGNORE = (
    *("ignore", "disregard", "forget", "override", "bypass"),
    *("not follow", "n't follow", "stop follow", "not obey", "n't obey", "stop obey"),
)
_START = r"(?:^|(?<=[.!?:;>]) |(?<=[.!?:;>]))"
# Orders that name a model, its instructions or its answer, wherever they stand.
_ORDERS = (
    # “Ignore all previous instructions”, and that in other languages.
    (
        _IGNORE,
        re.compile(
            r"\b(?:ignore|disregard|forget|override|bypass|(?:do not|don't|stop) (?:follow|obey)"
            rf"(?:ing)?)\s+{_EARLIER}(?:instructions?|prompts?|commands?|directives?|guidelines)\b",
            _WRITTEN,
        ),
    ),
    (
        _IGNORE,
        re.compile(
            r"\b(?:ignore|disregard|forget) (?:(?:all|everything) )?(?:of )?(?:the )?above"
            r"(?= (?:and|then)\b|[.,;:!])",
            _WRITTEN,
        ),
    ),
    (
        ("forget",),
        re.compile(
            r"\bforget (?:everything|all|what)(?: that)? you(?:'ve| have| were| are)?"
            r"(?: been)? (?:told|instructed|taught)\b",
            _WRITTEN,
        ),
    ),
    (
        ("ignorier", "vergiss", "missacht"),
        re.compile(
            r"\b(?:ignorier|vergiss|missacht)\w*\s+(?:\w+\s+){0,4}(?:anweisung|instruktion|vorgabe)",
            _WRITTEN,
        ),
    ),
    (
        ("ignore", "oublie"),
        re.compile(
            r"\b(?:ignore|oublie)[zr]?\s+(?:\w+\s+){0,4}(?:instructions|consignes)\b", _WRITTEN
        ),
    ),
    (
        ("ignor", "olvid", "esque"),
        re.compile(
            r"\b(?:ignor|olvid|esque[çc])(?:[ae]n?)\s+(?:\w+\s+){0,4}instruc(?:ciones|[õo]es)",
            _WRITTEN,
        ),
    ),
    (
        ("ignor", "dimentica"),
        re.compile(r"\b(?:ignor|dimentic)\w+\s+(?:\w+\s+){0,4}istruzioni\b", _WRITTEN),
    ),
    (("忽略",), re.compile(r"忽略[^\n。]{0,12}(?:指令|指示|说明)", _WRITTEN)),
    (
        ("игнорируй",),
        re.compile(r"\bигнорируй\w*\s+(?:\w+\s+){0,4}(?:инструкци|указани)", _WRITTEN),  # noqa: RUF001 - Russian
    ),
    # Who the model is to be.
    (
        _MODEL_WORDS,
        re.compile(
            rf"\byou are (?:now |hereby )?(?:an? |the )?(?:\w+,? ){{0,3}}{_MODEL}\b(?!'s)"
            rf"|\bas an? (?:\w+ )?{_MODEL}, (?:you|i|please|do|your)\b"
            rf"|\bif you are an? (?:\w+ )?{_MODEL}\b"
            rf"|{_START}(?:attention|note (?:to|for)|dear|hey|hello|message (?:to|for)"
            rf"|instructions? (?:to|for)) (?:the |any |all )?{_MODEL}\b"
            r"(?= *[:,!\n]| (?:reading|processing))"
            rf"|\b{_MODEL} (?:(?:that|which|who) )?(?:is |are )?(?:reading|processing|analy[sz]ing"
            r"|summari[sz]ing|reviewing|evaluating) this\b",
            _WRITTEN,
        ),
    ),
    # Its instructions and its output.
    (
        ("instruction:", "instructions:", "task:", "directive:", "directives:"),
        re.compile(
            r"\b(?:new|real|actual|updated|additional|secret|hidden)"
            r" (?:instruction|task|directive)s?:",
            _WRITTEN,
        ),
    ),
    (
        ("m prompt", "m message", "n prompt", "l prompt", "r prompt", "your instructions"),
        re.compile(
            r"\b(?:reveal|print|output|show|repeat|display|leak|return|disclose|tell)\s+"
            r"(?:\w+ ){0,3}(?:system (?:prompt|message)|(?:hidden|initial|your) prompt"
            r"|your instructions)\b",
            _WRITTEN,
        ),
    ),
    (
        ("these instructions", "this instruction", "this prompt", "system prompt"),
        re.compile(
            r"\b(?:do not|don't|never) (?:reveal|mention|disclose|tell|acknowledge) (?:\w+ ){0,3}"
            r"(?:these instructions|this instruction|this prompt|system prompt)\b",
            _WRITTEN,
        ),
    ),
    (
        ("from now on",),
        re.compile(
            rf"{_START}from now on,? (?:you (?:are|must|will|should|respond|answer)"
            r"|(?:always |only )?(?:answer|respond|reply|act|write|output|speak))\b",
            _WRITTEN,
        ),
    ),
)
_HEADINGS = ("instruction", "response", "system", "assistant", "human")
_ROLES = (
    (("<|",), re.compile(r"<\|[a-z_]{2,30}\|>", _WRITTEN)),
    (("inst]", "sys>>"), re.compile(r"\[/?INST\]|<</?SYS>>", _WRITTEN)),
    (
        tuple(f"#{space}{word}" for space in ("", " ") for word in _HEADINGS),
        re.compile(
            r"^#{2,4} ?(?:instruction|response|system(?: prompt)?|assistant|human) ?:? ?$", _WRITTEN
        ),
    ),
    (
        ("<system", "</system", "<assistant", "</assistant", "<human", "</human"),
        re.compile(
            r"</?(?:system|assistant|human)(?:[_-](?:prompt|message|instructions?))?>", _WRITTEN
        ),
    ),
    (
        ('"role"',),
        re.compile(r"\"role\"\s{0,9}:\s{0,9}\"(?:system|assistant|developer)\"", _WRITTEN),
    ),
    (
        ("system:", "system :", "developer:", "assistant:", "prompt:", "message:", "instruction:"),
        re.compile(
            r"^\W{0,3}(?:system|developer|assistant)(?: (?:prompt|message|instruction|override))?"
            r" ?: ?(?:\w+,? )?(?:you\b|ignore|disregard|your\b|the (?:user|previous)\b|do not\b"
            r"|always\b|never\b|please\b|respond|answer|reply|output|set\b|return\b)",
            _WRITTEN,
        ),
    ),
    (
        ("system prompt", "system message", "system override"),
        re.compile(r"^system (?:prompt|message|override) ?:", _WRITTEN),
    ),
)
_BEFORE, _BEHIND = 160, 240


def _orders(content: str, kind: FlagKind, cues: Sequence[_Cue]) -> Iterator[Flag]:
    """Yield what names a model or its instructions, or looks like the frame of a prompt."""
    small = _in_small_letters(content)
    spans = {
        match.span()
        for needles, pattern in cues
        for start, end in _windows(small, needles)
        for match in pattern.finditer(content, start, end)
    }
    last = 0
    for start, end in sorted(spans):
        if start >= last:
            yield _flag(content, kind, start, end)
            last = end


def _windows(small: str, needles: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield the surroundings of the words; those of one word do not overlap much."""
    for needle in needles:
        at = small.find(needle)
        while at >= 0:
            end = at + len(needle) + _BEHIND
            yield max(0, at - _BEFORE), end
            at = small.find(needle, end)


def _in_small_letters(content: str) -> str:
    """Return the text in small letters, each at its place."""
    small = content.lower()
    if len(small) == len(content):
        return small
    return "".join(each.lower() if len(each.lower()) == 1 else each for each in content)


# A request to an assistant is told by its first word, its form, and by the text around it, which is
# about other things. The weights were fitted to planted and clean texts and rounded; no feature is
# enough by itself.
_CRAFT = (
    "translate transliterate paraphrase rephrase reword rewrite summarize summarise encode decode "
    "encrypt decrypt reverse proofread simplify substitute replace spell write compose draft "
    "generate create produce design craft develop build prepare make convince persuade claim argue "
    "assert spread promote advertise endorse encourage mention emphasize insist include insert "
    "append add request ask inform pose impersonate urge"
)
_TELL = (
    "tell explain describe list name give provide suggest recommend outline compare define discuss "
    "help assist teach show brainstorm propose advise share respond reply answer output use return "
    "print say repeat begin start end finish"
)
_ACT = (
    "calculate compute solve count convert determine classify identify analyze analyse evaluate "
    "assess estimate predict forecast rate rank detect find extract investigate research check "
    "search look set remind schedule book play turn order arrange organize organise plan pretend "
    "act speak"
)
_ASK = "how what who where when why which whose"
_ASK_IF = "is are do does did can could should would will has have"
_FIRST_WORDS = {
    word: weight
    for weight, words in ((0.5, _CRAFT), (0.0, _TELL), (-0.5, _ACT), (0.0, _ASK), (-0.5, _ASK_IF))
    for word in words.split()
}
_QUESTION_WORDS = frozenset(f"{_ASK} {_ASK_IF}".split())
_MIN_SENTENCE, _MAX_SENTENCE = 8, 400
_SENTENCE = re.compile(r"[^\n.?!|]+(?:[.?!](?=[^\s.?!])[^\n.?!|]*)*+[.?!\"'”’)]*+")
_BULLET = " \t-*•\"'“”(>0123456789.)"
_POLITE = re.compile(
    r"(?:(?:please|kindly|now|also|then|and|next|finally|first|instead|hey|hi|ok|okay|so|but|just"
    r"|only|always|(?:can|could|would|will) you|(?:i(?:'d| would) like|i want|i need)(?: you)? to"
    r"|your (?:new )?task is to|you (?:must|should|have to|need to)|help (?:me|us)(?: to)?)"
    r"[,:]?\s+){0,3}",
    re.IGNORECASE,
)
_HEAD = re.compile(r"[A-Za-z]+")
_POLITE_WORDS = (
    "please kindly now also then and next finally first instead hey hi ok okay so but just only "
    "always i your you every"
)
_BEGINNINGS = _FIRST_WORDS.keys() | frozenset(_POLITE_WORDS.split())
_WHOLE_ANSWER = re.compile(
    r"(?:your|every) (?:\w+ )?(?:answer|response|reply|output)s?\b", re.IGNORECASE
)
_ENDS = (".", "?", "!", '"', "”")
_QUOTED = re.compile(r"[\"“'][^\"”\n]{5,}[\"”'][.?!]?$")
_OBJECT = re.compile(
    r"(?:['’]s)? (?:an?|the|me|us|my|your|how|wh(?:at|y|en|ere|ether)|th(?:is|ese|at)|some|all|any"
    r"|each|every|it|if|to|like|as|only|in|on|two|three|four|five|six|seven|ten|\d+)\b| [\"“']",
    re.IGNORECASE,
)
_GENERIC_QUESTION = re.compile(
    r"how (?:can|do|should|could|to|would) (?:i|we|you|one)\b|what['’]s "
    r"|wh\w+ (?:is|are|was|were|did|does|do|steps) ",
    re.IGNORECASE,
)
_POINTING = re.compile(
    r"\b(?:it|its|he|she|they|them|him|her|his|their|that|those|these|this|we|our|there|such"
    r"|section|above|below|herein|following)\b",
    re.IGNORECASE,
)
_TO_SOMEONE = re.compile(r"\b(?:me|my|i|us)\b", re.IGNORECASE)
_ABOUT_ANSWER = re.compile(
    r"\b(?:your|the) (?:next |final )?(?:answer|response|reply|output)s?\b|\bthe users?\b",
    re.IGNORECASE,
)
_CONTENT_WORD = re.compile(r"[^\W\d_]{3,}")
_PREFIX = 5
_COMMON_WORDS = (
    "the and for with that this from have has are was were will would could should can you your "
    "our their his her its them they she him who what when where which how why please tell "
    "about into than then there here some any all more most other such very just only also each "
    "every one two not but may might must does did been being give list name make write explain "
    "describe provide using use like want need know before after whether come until while "
    "because again between during without within over under both these those same own few many "
    "much let get got yes well still even back"
)
_COMMON = frozenset(_COMMON_WORDS.split())
_AROUND = 1_500
_THRESHOLD = 6.5
_FEW_WORDS = 15
_MIN_WORDS_AROUND = 5
_MIN_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class _Request:
    """A sentence that begins as a request does, with what its form alone says about it."""

    start: int
    end: int
    weight: float
    words: frozenset[str]


def _requests(content: str) -> Iterator[Flag]:
    """Yield the requests to an assistant that have nothing to do with the text around them."""
    sentences, candidates = 0, []
    for match in _SENTENCE.finditer(content):
        if match.end() - match.start() > _MIN_SENTENCE:
            sentences += 1
            if request := _request(content, *match.span()):
                candidates.append(request)
    # In a long text one of many sentences looks strange, and where requests are usual none does.
    expected = 1.5 * log10(sentences + 1) + 1.5 * log10(len(candidates) + 1)
    for request in candidates:
        missing = _THRESHOLD + expected - request.weight
        if missing <= _MAX_STRANGENESS and _strangeness(content, request) > missing:
            yield _flag(content, FlagKind.REQUEST, request.start, request.end)


def _request(content: str, start: int, end: int) -> _Request | None:
    sentence = content[start : min(end, start + _MAX_SENTENCE)].rstrip()
    body = sentence.lstrip(_BULLET)
    head = _HEAD.match(body)
    if not head or head[0].lower() not in _BEGINNINGS:
        return None
    polite = _POLITE.match(body)
    begin = polite.end() if polite else 0
    head = _HEAD.match(body, begin) or head
    word = head[0].lower()
    weight = _FIRST_WORDS.get(word, 0.0 if _WHOLE_ANSWER.match(body) else None)
    if weight is None or (word in _QUESTION_WORDS and not _asks(body)):
        return None
    is_line = (start == 0 or content[start - 1] == "\n") and content[end : end + 1] in ("", "\n")
    found = _CONTENT_WORD.findall(body[head.end() :].lower())
    return _Request(
        start + len(sentence) - len(body),
        start + len(sentence),
        weight + (1.5 if is_line else 0.0) + _form(body, begin, head.end()),
        frozenset(each[:_PREFIX] for each in found if each not in _COMMON),
    )


def _asks(body: str) -> bool:
    return body.rstrip("\"'”’)").endswith("?") or bool(_QUOTED.search(body))


def _form(body: str, begin: int, behind: int) -> float:
    """Weigh whether a sentence is whole, stands by itself, and wants something of a model."""
    is_capital = body[:1].isupper() and not body.isupper()
    return (
        (1.5 if is_capital else 0.0)
        + (2.5 if is_capital and body.endswith(_ENDS) else 0.0)
        + (1.5 if _OBJECT.match(body, behind) else 0.0)
        + (1.0 if _GENERIC_QUESTION.match(body, begin) else 0.0)
        + (0.5 if _TO_SOMEONE.search(body) else 0.0)
        + (0.5 if _ABOUT_ANSWER.search(body) else 0.0)
        - 1.0 * min(2, len(_POINTING.findall(body)))
    )


_MAX_STRANGENESS = 5.5


def _strangeness(content: str, request: _Request) -> float:
    """Weigh how many of its words the text around does not have: 0 to 5.5, or no chance."""
    before = content[max(0, request.start - _AROUND) : request.start]
    words = _CONTENT_WORD.findall(
        f"{before} {content[request.end : request.end + _AROUND]}".lower()
    )
    around = {each[:_PREFIX] for each in words if each not in _COMMON}
    new = request.words - around
    share = len(new) / max(1, len(request.words))
    if len(around) < _MIN_WORDS_AROUND or share < _MIN_SHARE:
        return -inf  # the text is a request, or it is what the text is about
    return (
        share
        + (1.5 if share == 1 else 0.0)
        + 1.0 * min(3, len(new))
        - (1.0 if len(around) < _FEW_WORDS else 0.0)
    )


_BASE64 = re.compile(
    r"(?<![\w+/])(?:[A-Za-z0-9+/]{4}){10,}+(?:[A-Za-z0-9+/]{2,3})?={0,2}(?![\w+/])"
)
_MAX_ENCODED = 4_000
_READABLE = re.compile(r"[ -~\n]+")
_MIN_WORDS_ENCODED = 4


def _encoded(content: str) -> Iterator[Flag]:
    """Yield words that are written as Base64, which a reader does not read and a model may."""
    for match in _BASE64.finditer(content):
        written = match[0].rstrip("=")[:_MAX_ENCODED]
        decoded = b64decode(f"{written}{'=' * (-len(written) % 4)}").decode("latin-1")
        if _READABLE.fullmatch(decoded) and decoded.count(" ") >= _MIN_WORDS_ENCODED:
            flag = _flag(content, FlagKind.ENCODED_TEXT, *match.span())
            yield replace(flag, excerpt=_shortened(decoded))


def _hidden(content: str, unseen: Sequence[str]) -> Iterator[Flag]:
    end = 0
    for passage in unseen:
        start = content.find(passage, end)
        if start >= 0 and passage:
            end = start + len(passage)
            yield _flag(content, FlagKind.HIDDEN_TEXT, start, end)


# As the prompt of a transcription asks for it.
_ILLEGIBLE = re.compile(r"\[illegible\]")
_TAG_TEXT = range(0xE0020, 0xE007F)
_TAGS = 0xE0000


def _of_run(at: int, run: str) -> Flag:
    """Flag removed characters; what tags (Unicode's invisible copy of ASCII) spell is readable."""
    spelled = "".join(chr(ord(each) - _TAGS) for each in run if ord(each) in _TAG_TEXT)
    kind = FlagKind.INVISIBLE_CHARACTERS
    return Flag(kind=kind, start_char=at, end_char=at, excerpt=_shortened(spelled))
