"""Text normalization: makes a text storable and its offsets stable, and counts the changes."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import groupby, islice
from operator import itemgetter

from chordwise.domain.number_formats import counted

BYTE_ORDER_MARK = "\ufeff"
REPLACEMENT = "\ufffd"
_SURROGATES = re.compile("[\ud800-\udfff]")
_NUL = re.compile("\0")
_PAIR = re.compile("\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizedText:
    """A text that PostgreSQL can store, and the number of changes of each kind.

    `hiding_removed` counts the invisible characters that can hide text, a part of
    `invisible_removed`. `runs` are the first removed invisible characters with their offsets.
    `removed_at` are the offsets of removed characters, one sequence for each step except line ends,
    in the text before that step; `with_returns` is the text before the step of line ends.
    """

    text: str
    nul_removed: int = 0
    surrogates_replaced: int = 0
    line_ends_changed: int = 0
    invisible_removed: int = 0
    hiding_removed: int = 0
    runs: tuple[tuple[int, str], ...] = ()
    removed_at: tuple[Sequence[int], ...] = ()
    with_returns: str = ""

    def offsets(self) -> Callable[[int], int] | None:
        """Return a function from original offsets to normalized ones; `None` if they are equal."""
        returns_at = array("I", (pair.start() for pair in _PAIR.finditer(self.with_returns)))
        *first, last = self.removed_at or ((),)
        steps = [step for step in (*first, returns_at, last) if step]

        def offset(original: int) -> int:
            for removed in steps:
                original -= bisect_left(removed, original)
            return original

        return offset if steps else None


def normalize(text: str) -> NormalizedText:
    """Return the text without characters that cannot be stored or seen, with line feeds only."""
    nuls = _NUL.finditer(text) if "\0" in text else ()
    nul_at = array("I", (nul.start() for nul in nuls))
    text, surrogates_replaced = _without_surrogates(text.replace("\0", ""))
    with_returns = text.lstrip(BYTE_ORDER_MARK)
    marks_at = range(len(text) - len(with_returns))
    text = with_returns.replace("\r\n", "\n").replace("\r", "\n")
    visible, removed, invisible_at = _visible(text)
    hiding = sum(1 for _ in _HIDING.finditer(removed))
    return NormalizedText(
        text=visible,
        nul_removed=len(nul_at),
        surrogates_replaced=surrogates_replaced,
        line_ends_changed=with_returns.count("\r"),
        invisible_removed=len(removed),
        hiding_removed=hiding,
        runs=_runs(removed, invisible_at) if hiding or len(removed) > FEW else (),
        removed_at=(nul_at, marks_at, invisible_at),
        with_returns=with_returns if len(text) < len(with_returns) else "",
    )


def _without_surrogates(text: str) -> tuple[str, int]:
    # Encoding is fifty times faster than the search, which nearly no text needs.
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATES.subn(REPLACEMENT, text)
    return text, 0


MAX_RUNS, _RUN_CHARACTERS = 20, 1_000


def _runs(removed: str, removed_at: Sequence[int]) -> tuple[tuple[int, str], ...]:
    """Return the first runs of removed characters and their places in the text without them."""
    places = (place - before for before, place in enumerate(removed_at))
    runs = groupby(zip(places, removed, strict=True), key=itemgetter(0))
    return tuple(
        (place, "".join(character for _, character in islice(run, _RUN_CHARACTERS)))
        for place, run in islice(runs, MAX_RUNS)
    )


FEW = 20
"""The number of invisible characters that programs commonly leave and that need no review."""
REASON = "invisible_characters"
"""The value of `intakes.reason` for a document that needs review."""
HINT = "Look at the file before you rely on its results (docs/formats.md, Invisible text)."
_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_JOINING = (
    "\u0600-\u061b\u061d-\u109f\u1780-\u17b3\u17b6-\u180a\u1810-\u18af\u1900-\u1cff\ua800-\uabff"
    "\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff\U0001e900-\U0001e95f"
)
_SPACELESS = (
    "\u0e00-\u109f\u1780-\u17b3\u17b6-\u17ff\u1900-\u19ff\u1a20-\u1aaf\ua980-\ua9ff\uaa60-\uaadf"
    "\u2e80-\u3163\u3165-\u9fff\uf900-\ufaff"
)
_IDEOGRAPHS = "\u2e80-\u3163\u3165-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_EMOJI = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u27bf\u2900-\u297f\u2b00-\u2bff"
    "\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_VARIED = (
    "0\u1000-\u109f\u2018-\u201d\u2200-\u22ff\u2a00-\u2aff\ua840-\ua87f\uaa60-\uaa7f"
    "\uff01-\uff1f\U00010ac0-\U00010aff\U00013000-\U0001345f"
)
_BIDI_CONTROLS = "\u061c\u200e\u200f\u202a-\u202c\u2066-\u2069"
_RIGHT_TO_LEFT = re.compile(
    "[\u05be-\u05f4\u0620-\u06ff\u0700-\u08ff\ufb1d-\ufdff\ufe70-\ufefc"
    "\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_NEEDED = (
    # Soft hyphen, and combining grapheme joiner.
    r"(?<=\w)\u00ad",
    rf"(?<=[^\s{_IGNORABLE}])\u034f(?=[\w\u0300-\u036f\u0590-\u05ff])",
    # Word joiner and the invisible operators of mathematics.
    rf"(?<=[^\s{_IGNORABLE}])[\u2060-\u2064](?=[^\s{_IGNORABLE}])",
    # Joiner and non-joiner.
    rf"(?<=[{_JOINING}])[\u200c\u200d]",
    rf"(?<![{_IGNORABLE}])[\u200c\u200d](?=[{_JOINING}])",
    rf"(?:(?<=[{_EMOJI}])|(?<=[{_EMOJI}]\ufe0f))\u200d(?=[{_EMOJI}])",
    # Zero-width space.
    rf"(?<=[{_SPACELESS}])\u200b",
    rf"(?<![{_IGNORABLE}])\u200b(?=[{_SPACELESS}])",
    # Variation selectors, one for each base.
    rf"(?<=[{_EMOJI}#*0-9])[\ufe0e\ufe0f]",
    rf"(?<=[{_IDEOGRAPHS}])[\ufe00-\ufe02\U000e0100-\U000e01ef]",
    rf"(?<=[{_VARIED}])[\ufe00-\ufe06]",
    "(?<=[\u1800-\u180a\u1810-\u18aa])[\u180b-\u180f]",
    # The flags of England, Scotland, Wales and other regions.
    "(?<=\U0001f3f4)[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f",
    # Joiners of Egyptian hieroglyphs, which have another property but are invisible, too.
    "(?<=[\U00013000-\U0001342f\U00013440-\U00013455])[\U00013430-\U0001343f]",
    "[\U00013430-\U0001343f](?=[\U00013000-\U0001342f\U00013440-\U00013455])",
    # Fillers of Hangul, inherent vowels of Khmer, controls of shorthand and of music.
    "\u115f(?=[\u1161-\u11ff])|(?<=[\u1100-\u115e\ua960-\ua97f])\u1160",
    "(?<=[\u1780-\u17b3])[\u17b4\u17b5]",
    "(?<=[\U0001bc00-\U0001bc9f])[\U0001bca0-\U0001bca3]",
    "(?<=[\U0001d100-\U0001d172])[\U0001d173-\U0001d17a]",
    "[\U0001d173-\U0001d17a](?=[\U0001d100-\U0001d172])",
)
_DIRECTING = rf"(?<![{_IGNORABLE}]{{3}})[{_BIDI_CONTROLS}]"
_CANDIDATE = re.compile(f"[{_IGNORABLE}]")
_IN_ANY_TEXT = re.compile(rf"(?=[{_IGNORABLE}])(?:({'|'.join(_NEEDED)})|.)")
_IN_RIGHT_TO_LEFT_TEXT = re.compile(
    rf"(?=[{_IGNORABLE}])(?:({'|'.join((*_NEEDED, _DIRECTING))})|.)"
)
# Tags, variation selectors except those of emoji, and overrides of the writing direction.
_HIDING = re.compile("[\U000e0000-\U000e007f\U000e0100-\U000e01ef\ufe00-\ufe0d\u202d\u202e]")


def _visible(text: str) -> tuple[str, str, Sequence[int]]:
    """Return the visible text, the removed characters, and their places."""
    removed_at = array("I")
    if text.isascii() or not _CANDIDATE.search(text):
        return text, "", removed_at
    pattern = _IN_RIGHT_TO_LEFT_TEXT if _RIGHT_TO_LEFT.search(text) else _IN_ANY_TEXT
    visible, removed, end = StringIO(), StringIO(), 0
    for match in pattern.finditer(text):
        if match[1] is None:
            visible.write(text[end : match.start()])
            removed.write(match[0])
            removed_at.append(match.start())
            end = match.end()
    visible.write(text[end:])
    return visible.getvalue(), removed.getvalue(), removed_at


def review_reason(*, unseen: int, removed: int, hiding: int) -> str:
    """Return why a document needs review for its numbers of invisible characters, or nothing."""
    sentences = []
    if hiding or removed > FEW:
        were = "was" if removed == 1 else "were"
        characters = counted(removed, "invisible Unicode character")
        sentences.append(f"{characters} {were} removed from the text")
    if hiding:
        sentences[-1] += (
            f", {hiding:,} of a kind that can hide instructions "
            "(tags, variation selectors, direction overrides)"
        )
    if unseen > FEW:
        sentences.append(f"{unseen:,} characters of the text are not visible on the pages")
    return " ".join(f"{sentence}." for sentence in sentences)
