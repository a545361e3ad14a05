"""Detection of passages in a document that address a model, or that could not be read."""

from __future__ import annotations

import re
import unicodedata
from array import array
from base64 import b64decode
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from heapq import merge
from itertools import chain, groupby, islice, repeat
from operator import itemgetter
from string import ascii_letters, ascii_lowercase, digits
from typing import NamedTuple, TypeAlias

from chordwise.domain import assistant_requests, json_values
from chordwise.domain.json_values import JsonValue

MAX_FLAGS_OF_KIND = 20
"""The maximum number of passages of each kind that are kept of a document, the first ones."""
REASON = "suspicious_passages"
"""The code in `intakes.reason` if passages of a document address a model."""
HINT = "Read these passages before you rely on the results (docs/formats.md, Suspicious passages)."
_MAX_EXCERPT = 120


class FlagKind(StrEnum):
    """The kind of a suspicious passage.

    An order names the model or its instructions; a request is a task for an assistant that is
    unrelated to the surrounding text. A passage is illegible if a transcriber marked it as such.
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

    Removed characters have length 0 there. `excerpt` is its beginning, or its decoded content.
    """

    start_char: int
    end_char: int
    kind: FlagKind
    excerpt: str = ""


def from_json(stored: JsonValue) -> tuple[Flag, ...]:
    """Parse flags from `documents.flags`, which holds their `json_values.as_json`; null is none."""
    return tuple(
        Flag(
            start_char=json_values.integer(entry["start_char"]) or 0,
            end_char=json_values.integer(entry["end_char"]) or 0,
            kind=FlagKind(json_values.text(entry["kind"])),
            excerpt=json_values.text(entry["excerpt"]),
        )
        for entry in json_values.objects(stored)
    )


def flags(
    content: str,
    unseen: Sequence[str] = (),
    removed: Sequence[tuple[int, str]] = (),
    left_out: Sequence[str] = (),
    unseen_at: Sequence[int] = (),
) -> tuple[Flag, ...]:
    """Return the suspicious passages of a text in order, in time linear in its length.

    `unseen` are the passages that are invisible in the file, `unseen_at` their positions if known.
    `removed` are the runs of invisible characters that normalization removed, with their positions.
    `left_out` are passages outside of the text that address a model.
    """
    small = _in_small_letters(content)
    orders = list(islice(_orders(content, small, FlagKind.ORDER), MAX_FLAGS_OF_KIND))
    kinds = (
        orders,
        _disguised(content, orders),
        _orders(content, small, FlagKind.ROLE_MARK),
        (
            _flag(content, FlagKind.REQUEST, start, end)
            for start, end in assistant_requests.find_requests(content)
            if not any(order.start_char < end and start < order.end_char for order in orders)
        ),
        _encoded(content, small),
        _hidden(content, unseen, unseen_at),
        map(_outside, left_out),
        (_of_run(at, run) for at, run in removed),
        (_flag(content, FlagKind.ILLEGIBLE, *one.span()) for one in _ILLEGIBLE.finditer(content)),
    )
    return tuple(sorted(flag for group in kinds for flag in islice(group, MAX_FLAGS_OF_KIND)))


def has_illegible(passages: Sequence[Flag]) -> bool:
    """Return whether a part of the document could not be read."""
    return any(passage.kind is FlagKind.ILLEGIBLE for passage in passages)


def review_reason(passages: Sequence[Flag], unseen: str = "") -> str:
    """Return why the document needs review, after the reason for its `unseen` text."""
    reported = [passage for passage in passages if not (unseen and passage.kind in _UNSEEN)]
    if not reported:
        return unseen
    first = min(reported, key=lambda flag: flag.kind in _UNSEEN)
    shown = f"“{first.excerpt}” (" if first.excerpt else "("
    others = f" and {len(reported) - 1} more" if len(reported) > 1 else ""
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


_Cue: TypeAlias = tuple[tuple[str, ...], re.Pattern[str]]
"""Lower-case words, one of which a text must contain to be searched, and the pattern."""


_MACHINE = (
    r"(?:chat ?gpt|gpt-?\d\w*|llms?|claude|gemini|copilot|(?:large )?language models?"
    r"|a\.?i\.?(?: (?:language )?(?:models?|assistants?|agents?|systems?|reviewers?|readers?))?"
    r"|(?:virtual |digital )assistants?|(?:chat ?)?bots?|summari[sz]ers?"
    r"|automated (?:readers?|reviewers?|systems?|processing|extraction))"
)
_MODEL = rf"(?:{_MACHINE}|assistants?)"
_MODEL_WORDS = (
    *("gpt", "chatgpt", "llm", "claude", "gemini", "copilot", "language model"),
    *("bot", "chatbot", "assistant", "summarizer", "summariser"),
    *("automated ", "ai ", "ai,", "ai.", "ai:", "ai\n", "a.i."),
)
_FOREIGN_MODEL_WORDS = (
    *("ki:", "ki,", "ki ", "ia:", "ia,", "ia ", "modell", "sprachmodell", "modelo", "modèle"),
    *("人工智能", "语言模型", "ai助手"),
)
_EARLIER = (
    r"(?:(?:all|any|every|everything|each|of|the|these|those|this|that|your|my|our|other|and|or"
    r"|previous(?:ly)?|prior|above|preceding|earlier|former|foregoing|initial|original|system"
    r"|existing|current|given|safety)\s+){0,6}"
)
_IGNORE = (
    *("ignore", "disregard", "forget", "override", "bypass", "leave out", "stop what"),
    *("not follow", "n't follow", "stop follow", "not obey", "n't obey", "stop obey"),
)
_START = r"(?:^|(?<=[.!?:;>]) ?)"
_ANSWER = r"(?:answer|respond|reply|output|return|report|say|state|print|write)"
_ALWAYS = r"(?:please |always |only |simply |just |never |you (?:must|should) |do not ){0,3}"
# Orders that name a model, its instructions or its answer, at any position.
_ORDERS = {
    # “Ignore all previous instructions”, also in other languages.
    _IGNORE: (
        r"\b(?:ignore|disregard|forget|override|bypass|(?:do not|don't|stop) (?:follow|obey)"
        rf"(?:ing)?)\s+{_EARLIER}(?:instructions?|prompts?|commands?|directives?|guidelines)\b"
        r"|\b(?:ignore|disregard|forget|leave out) (?:(?:all|everything) )?(?:of )?(?:the )?"
        r"above(?= (?:and|then)\b|[.,;:!])"
        r"|\b(?:forget|ignore|stop) (?:everything|all|what)(?: that)? you(?:'ve| have|'re| were"
        r"| are)?(?: been)? (?:told|instructed|taught|doing)\b"
    ),
    ("ignor", "vergiss", "missacht", "oubli", "pas compte", "olvid", "esque", "dimentic"): (
        r"\b(?:ignor(?:ier\w*|e[zr]|[aei]n?)|vergiss|missacht\w*|oublie[zr]?"
        r"|ne (?:tiens|tenez) pas compte|olvid[ae]n?|esque[çc][ae]n?|dimentic\w+)\s+"
        r"(?:[\w’']+,?\s+){0,5}?(?:anweisung|instruktion|vorgabe|was vorher|bisherige|consignes"
        r"|instructions\b|instruc(?:ciones|[õo]es)|istruzioni|lo anterior\b)"
    ),
    ("讲一", "写一", "编一", "说一"): (
        r"(?:^|(?<=[.!?\u3002\uff01\uff1f]) ?)(?:请|帮我|给我)?[讲写编说]一[个首篇段则句]"
    ),
    ("忽略", "忘记", "无视"): r"(?:忽略|忘记|无视)[^\n。]{0,12}(?:指令|指示|说明|内容)",
    ("игнорируй",): r"\bигнорируй\w*\s+(?:\w+\s+){0,4}(?:инструкци|указани)",  # noqa: RUF001 - Russian
    # The addressee.
    _MODEL_WORDS: (
        rf"\b(?:you are (?:now |hereby )?(?:an? |the )?(?:\w+,? ){{0,3}}{_MODEL}\b(?!'s)"
        rf"|as an? (?:\w+ )?{_MODEL}, (?:you|i|please|do|your)\b"
        rf"|if you are an? (?:\w+ )?{_MODEL}\b"
        rf"|{_MODEL} (?:(?:that|which|who) )?(?:is |are )?(?:reading|processing|analy[sz]ing"
        r"|summari[sz]ing|reviewing|evaluating) this\b"
        rf"|{_MACHINE} (?:must|should) {_ALWAYS}{_ANSWER}\b"
        rf"|for {_MODEL}[,:] ?(?:is|{_ANSWER}|set|use|put|give|the)\b)"
        rf"|{_START}(?:(?:attention|note (?:to|for)|dear|hey|hello|message (?:to|for)"
        rf"|instructions? (?:to|for)) (?:the |any |all )?{_MODEL}\b"
        r"(?= *[:,!\n]| (?:reading|processing))"
        rf"|{_MODEL}[,:] ?{_ALWAYS}(?:{_ANSWER}|set|use|put|give|rate|treat|leave|omit"
        r"|add|include|translate|tell|stop)\b)"
    ),
    _FOREIGN_MODEL_WORDS: (
        r"(?:^|[.!?] )(?:[\w’']+ ){0,3}(?:für|an|pour|à|para|per|del?|du|al?)"
        r"(?: la| das| die| el| le)?(?: (?:l['’])?|l['’])(?:ki|ia|sprachmodelle?"
        r"|modèles? de langage"
        r"|modelos? de (?:lenguaje|linguagem)|modell[oi] linguistic[oi]) ?[:,]"
        r"|(?:^|[\u3002\uff01\uff1f]|[.!?] )[^\n\u3002\uff1a\uff0c]{0,8}"
        r"(?:人工智能|语言模型|ai助手)[^\n\u3002\uff1a\uff0c]{0,8}[\uff1a\uff0c]"
    ),
    (
        "summar",
        "extract",
        "analy",
        "process",
        "read",
        "asked",
        "appears",
        "occurs",
        "the word",
        "the phrase",
        "from now on",
    ): (
        r"\b(?:when(?:ever)?|if|before|whoever|anyone)(?: \w+){0,2} (?:summari[sz]|extract"
        r"|analy[sz]|process|read|asked|see|appear)\w*\b[^.\n]{0,60}?(?:,| must| should) "
        rf"{_ALWAYS}(?:answer|respond|reply|output|return|report|say|print)\b"
        r"|\b(?:if|when(?:ever)?|(?:each|every) time) the (?:word|phrase)s? [^.\n]{1,40}? "
        rf"(?:appears?|occurs?|is (?:mentioned|used))[^.\n]{{0,20}}?, {_ALWAYS}{_ANSWER}\b"
        rf"|{_START}from now on,? (?:you (?:are|must|will|should)|{_ALWAYS}(?:{_ANSWER}|act"
        r"|speak)|when(?:ever)? you\b)"
    ),
    # The instructions and the output of the model.
    ("instruction:", "instructions:", "task:", "directive:", "directives:"): (
        r"\b(?:new|real|actual|updated|additional|secret|hidden)"
        r" (?:instruction|task|directive)s?:"
    ),
    ("m prompt", "m message", "n prompt", "l prompt", "r prompt", "your instructions"): (
        r"\b(?:reveal|print|output|show|repeat|display|leak|return|disclose|tell|write)\s+"
        r"(?:\w+ ){0,3}(?:system (?:prompt|message)|(?:hidden|initial|your) prompt"
        r"|your instructions)\b"
    ),
    ("these instructions", "this instruction", "this prompt", "system prompt"): (
        r"\b(?:do not|don't|never) (?:reveal|mention|disclose|tell|acknowledge) (?:\w+ ){0,3}"
        r"(?:these instructions|this instruction|this prompt|system prompt)\b"
    ),
    ("your answer", "your response", "your reply", "your output", "your summary", "your json"): (
        r"\b(?:do not|don't|never|must not) [^.\n]{3,60}? (?:in|from) your (?:\w+ )?"
        r"(?:answer|response|reply|output|summary|json)\b"
        r"|\bin your (?:\w+ )?(?:answer|response|reply|output|summary|json),"
        rf" {_ALWAYS}(?:{_ANSWER}|put|set|use|leave|mention|include|add)\b"
        r"|\byour (?:\w+ )?(?:answer|response|reply|output|summary) (?:must|should|has to|needs to)"
        rf" (?:only |always )?(?:be (?:written |given )?in {assistant_requests.LANGUAGE}"
        r"|contain only|consist (?:only )?of|(?:begin|start|end) with)\b"
    ),
    ("regardless", "no matter", "instead of"): (
        rf"{_START}(?:regardless of|no matter|instead of) [^.\n,]{{3,60}}, "
        rf"{_ALWAYS}{_ANSWER}\b"
    ),
}
_HEADINGS = tuple(
    f"#{space}{word}"
    for space in ("", " ")
    for word in ("instruction", "response", "system", "assistant", "human")
)
_TAGS = tuple(f"<{slash}{role}" for slash in ("", "/") for role in ("system", "assistant", "human"))
_ROLES = {
    ("<|",): r"<\|[a-z_]{2,30}\|>",
    ("inst]", "sys>>"): r"\[/?INST\]|<</?SYS>>",
    _HEADINGS: r"^#{2,4} ?(?:instruction|response|system(?: prompt)?|assistant|human) ?:? ?$",
    _TAGS: r"</?(?:system|assistant|human)(?:[_-](?:prompt|message|instructions?))?>",
    ('"role"',): r"\"role\"\s{0,9}:\s{0,9}\"(?:system|assistant|developer)\"",
    ("system:", "system :", "developer:", "assistant:", "prompt:", "message:", "instruction:"): (
        r"^\W{0,3}(?:system|developer|assistant)(?: (?:prompt|message|instruction|override))?"
        r" ?: ?(?:\w+,? )?(?:you\b|ignore|disregard|your\b|the (?:user|previous)\b|do not\b"
        r"|always\b|never\b|please\b|respond|answer|reply|output|set\b|return\b)"
    ),
    (
        "system prompt",
        "system message",
        "system override",
    ): r"^system (?:prompt|message|override) ?:",
}
_CUES: Mapping[FlagKind, Sequence[_Cue]] = {
    kind: [
        (needles, re.compile(pattern, re.IGNORECASE | re.MULTILINE))
        for needles, pattern in cues.items()
    ]
    for kind, cues in ((FlagKind.ORDER, _ORDERS), (FlagKind.ROLE_MARK, _ROLES))
}
_BEFORE, _BEHIND = 160, 240
_PART, _OVERLAP = 1_000_000, 20


def lines_addressing_model(hidden: str) -> tuple[str, ...]:
    """Return the lines of a hidden text that address a model, up to the limit of kept passages."""
    small = _in_small_letters(hidden)
    orders = (flag for kind in _CUES for flag in _orders(hidden, small, kind))
    lines = (
        hidden[hidden.rfind("\n", 0, flag.start_char) + 1 :].lstrip().partition("\n")[0]
        for flag in islice(orders, MAX_FLAGS_OF_KIND)
    )
    return tuple(dict.fromkeys(lines))


def _orders(content: str, small: _Small, kind: FlagKind) -> Iterator[Flag]:
    """Yield passages that name a model or its instructions, or that resemble a prompt frame."""
    cues = [cue for cue in _CUES[kind] if not small.needles.isdisjoint(cue[0])]
    last = 0
    for start, end in merge(*(_matches(content, small, cue) for cue in cues)):
        if start >= last:
            yield _flag(content, kind, start, end)
            last = end


def _matches(content: str, small: _Small, cue: _Cue) -> Iterator[tuple[int, int]]:
    needles, pattern = cue
    for start, end in _windows(small, needles):
        yield from (match.span() for match in pattern.finditer(content, start, end))


_LOOKALIKES = (
    "АВЕЅІЈКМНОРСТХУԌаеѕіјорсхуһԁӏԛԝɡΑΒΕΖΗΙΚΜΝΟΡΤΥΧαγεικνορυχ",
    "ABESIJKMHOPCTXYGaesijopcxyhdlqwgABEZHIKMNOPTYXayeikvopux",
)
_WITHIN_WORDS = "\u00ad\u034f\u2060-\u2064\u0300-\u036f"
_INVISIBLE = re.compile(f"[{_WITHIN_WORDS}]+")
_STYLED = "\uff21-\uff5a\u24b6-\u24e9\U0001d400-\U0001d6a3"
_UNUSUAL = re.compile(f"[{_LOOKALIKES[0]}{_STYLED}{_WITHIN_WORDS}]")
_DISGUISE = re.compile(
    f"[{_STYLED}]|[A-Za-z][{_LOOKALIKES[0]}{_WITHIN_WORDS}]|[{_LOOKALIKES[0]}][A-Za-z]"
)
_PLAIN_LETTERS = str.maketrans(*_LOOKALIKES) | {
    code: ord(unicodedata.normalize("NFKC", chr(code))[0])
    for code in (*range(0xFF21, 0xFF5B), *range(0x24B6, 0x24EA), *range(0x1D400, 0x1D6A4))
}


def _disguised(content: str, known: Sequence[Flag]) -> Iterator[Flag]:
    """Yield orders that are written in unusual letters or with invisible characters."""
    if content.isascii() or not (_UNUSUAL.search(content) and _DISGUISE.search(content)):
        return
    written = content.translate(_PLAIN_LETTERS)
    removed = array("I")  # for each removed character, the offset in the plain text
    for match in _INVISIBLE.finditer(written):
        removed.extend([match.start() - len(removed)] * (match.end() - match.start()))
    plain = _INVISIBLE.sub("", written)
    for order in _orders(plain, _in_small_letters(plain), FlagKind.ORDER):
        start = order.start_char + bisect_right(removed, order.start_char)
        end = order.end_char + bisect_right(removed, order.end_char - 1)
        if not any(flag.start_char < end and start < flag.end_char for flag in known):
            yield replace(order, start_char=start, end_char=end)


def _windows(small: _Small, needles: Iterable[str]) -> Iterator[tuple[int, int]]:
    start = end = -1
    places = (_places(small.text, needle) for needle in small.needles.intersection(needles))
    for at, length in merge(*places):
        if at - _BEFORE > end:
            if end >= 0:
                yield start, end
            start = max(0, at - _BEFORE)
        end = max(end, at + length + _BEHIND)
    if end >= 0:
        yield start, end


def _places(small: str, needle: str) -> Iterator[tuple[int, int]]:
    at = small.find(needle)
    while at >= 0:
        yield at, len(needle)
        at = small.find(needle, at + 1)


class _Small(NamedTuple):
    """A text in lower case with unchanged offsets, its ASCII characters, and the cues in it."""

    text: str
    ascii: bytes
    needles: frozenset[str]


def _in_small_letters(content: str) -> _Small:
    # In parts, because lower() takes 12 bytes for each character of a text that is not ASCII.
    starts = range(0, len(content), _PART)
    plain = (content[start : start + _PART].replace("\u0130", "I") for start in starts)
    small = "".join([part.lower() for part in plain])  # only that letter has a longer small form
    beginnings = {""}
    for start in starts:
        part = small[max(0, start - _OVERLAP) : start + _PART].encode("ascii", "replace")
        words = b" %b " % part.translate(_BLANKED)
        beginnings |= {match[1].decode() for match in _BEGINNING.finditer(words)}
    needles = (needle for prefix in beginnings for needle in _NEEDLES[prefix] if needle in small)
    return _Small(small, small.encode("ascii", "replace"), frozenset(needles))


def _beginning(needle: str) -> str:
    words = _ENGLISH.findall(needle) if needle.isascii() else ()
    return max(words, key=len, default="")[:_BEGINNING_LETTERS]


_ENGLISH = re.compile(r"[a-z]{2,}")
_BEGINNING_LETTERS = 4
_NEEDLES: dict[str, list[str]] = defaultdict(list)
for _needle in (needle for cues in _CUES.values() for needles, _ in cues for needle in needles):
    _NEEDLES[_beginning(_needle)].append(_needle)
# Replaces every character except small letters by a blank.
_BLANKED = bytes(code if chr(code) in ascii_lowercase else ord(" ") for code in range(256))


def _rest(beginning: str) -> str:
    is_whole = len(beginning) < _BEGINNING_LETTERS
    return f"{beginning[1:]}(?=s? )" if is_whole else beginning[1:]


# Shorter words must be whole. The grouping by first letters makes the search twice as fast.
_BEGINNING = re.compile(
    b" (%b)"
    % "|".join(
        rf"{first}(?:{'|'.join(_rest(beginning) for beginning in group)})"
        for first, group in groupby(sorted(filter(None, _NEEDLES)), key=itemgetter(0))
    ).encode()
)


# On one line or in pieces, of which the last one may be short.
_BASE64 = re.compile(
    r"(?<![\w+/])[A-Za-z0-9+/]{16,}+(?:[ \n]{1,2}[A-Za-z0-9+/]{16,}+)*+"
    r"(?:[ \n]{1,2}[A-Za-z0-9+/]{2,15}+(?=[=\n]|\Z))?+={0,2}"
)
_SHORTEST_PIECE, _SHORTEST_ENCODED, _MAX_ENCODED = 16, 40, 4_000
# The characters of Base64 are replaced by x, others by blanks.
_AS_BASE64 = bytes(
    ord("x") if chr(code) in f"{ascii_letters}{digits}+/" else ord(" ") for code in range(256)
)
_READABLE = re.compile(r"[^\0-\x08\x0b-\x1f\x7f-\x9f]+")
_MIN_WORDS_ENCODED = 4
_MAX_CUT = 3  # bytes of a character in UTF-8 that a cut leaves


def _encoded(content: str, small: _Small) -> Iterator[Flag]:
    """Yield words encoded as Base64, which a person does not read and a model may."""
    if b"x" * _SHORTEST_PIECE not in small.ascii.translate(_AS_BASE64):
        return
    for match in _BASE64.finditer(content):
        written = "".join(match[0].rstrip("=")[:_MAX_ENCODED].split())
        if len(written) < _SHORTEST_ENCODED:
            continue
        whole = written[: len(written) - (len(written) % 4 == 1)]
        content_bytes = b64decode(f"{whole}{'=' * (-len(whole) % 4)}")
        decoded = content_bytes.decode(errors="ignore")
        is_text = len(decoded.encode()) >= len(content_bytes) - _MAX_CUT
        words = decoded.count(" ") if is_text and _READABLE.fullmatch(decoded) else 0
        if words >= _MIN_WORDS_ENCODED:
            flag = _flag(content, FlagKind.ENCODED_TEXT, *match.span())
            yield replace(flag, excerpt=_shortened(decoded))


def _hidden(content: str, unseen: Sequence[str], unseen_at: Sequence[int]) -> Iterator[Flag]:
    end = 0
    for passage, at in zip(unseen, chain(unseen_at, repeat(0)), strict=False):
        start = content.find(passage, max(end, at))
        if start >= 0 and passage:
            end = start + len(passage)
            yield _flag(content, FlagKind.HIDDEN_TEXT, start, end)
        elif passage:
            yield _outside(passage)


def _outside(passage: str) -> Flag:
    excerpt = _shortened(passage)
    return Flag(kind=FlagKind.HIDDEN_TEXT, start_char=0, end_char=0, excerpt=excerpt)


# The mark that the prompt of a transcription asks for.
_ILLEGIBLE = re.compile(r"\[illegible\]")
_TAG_TEXT = range(0xE0020, 0xE007F)
_TAG_OFFSET = 0xE0000


def _of_run(at: int, run: str) -> Flag:
    """Flag removed characters; the text spelled by Unicode tag characters is decoded."""
    spelled = "".join(chr(ord(sign) - _TAG_OFFSET) for sign in run if ord(sign) in _TAG_TEXT)
    kind = FlagKind.INVISIBLE_CHARACTERS
    return Flag(kind=kind, start_char=at, end_char=at, excerpt=_shortened(spelled))
