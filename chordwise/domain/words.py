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

# English, German, Dutch, French, Spanish, Italian, Portuguese, Russian and Ukrainian, Polish,
# Czech, Swedish, Danish and Norwegian, Turkish and Arabic; an asterisk stands for an ending.
_NEGATING = """
nor none neither never nothing nobody nowhere cannot unless except excepting excepted exception
exceptions excluding exclud* exclusion hardly scarcely barely rarely seldom lack lacks lacked
lacking absent absence fail fails failed failing failure refus* declin* deny denies denied
denying denial prohibit* forbid* forbade prevent* preclud* reject* refrain* abstain* ceas*
neglect* omit* unable unlikely impossible incapable unlawful* illegal* false falsely untrue
wrong wrongly incorrect* invalid disclaim* doubt* disputed disputing barred instead
nicht nichts nie niemals nimmer nirgends niemand* ohne weder kein* mitnichten kaum außer
ausgenommen ausgeschlossen anstatt untersag* verbiet* verbot* verweiger* weiger*
geweigert abgelehnt ablehn* abzulehnen unterlass* unterlie* versäum* fehlt fehlte fehlen
unmöglich unzulässig unwirksam verhinder* bestreit* bestritt*
niet niets nooit nimmer niemand geen zonder tenzij behalve weiger* geweigerd verbied* verbod*
ontken*
ne pas jamais sans aucun* rien ni nulle guère sauf hormis refus* interdi* empêch* faute
nunca jamás sin ningún ningun* nadie nada ni tampoco salvo excepto prohib* negó negar*
niega* rechaz* impid* imped*
senza nessun* niente nulla né neanche nemmeno neppure eccetto tranne viet* proib* rifiut* nega
negato impedi*
não sem nenhum* ninguém nem exceto recus* negou negado jamais impeç*
\u043d\u0435 \u043d\u0438 \u043d\u0435\u0442 \u0431\u0435\u0437
\u043d\u0438\u043a\u043e\u0433\u0434\u0430 \u043d\u0438\u043a\u0442\u043e
\u043d\u0438\u0447\u0442\u043e \u043d\u0438\u043a\u0430\u043a*
\u043d\u0435\u043b\u044c\u0437\u044f \u043a\u0440\u043e\u043c\u0435
\u0437\u0430\u043f\u0440\u0435* \u043e\u0442\u043a\u0430\u0437*
\u043d\u0435\u0432\u043e\u0437\u043c\u043e\u0436\u043d\u043e \u043d\u0456
\u043d\u0435\u043c\u0430\u0454 \u043d\u0456\u043a\u043e\u043b\u0438 \u043a\u0440\u0456\u043c
\u0437\u0430\u0431\u043e\u0440\u043e\u043d* \u0432\u0456\u0434\u043c\u043e\u0432*
nie nigdy bez ani żaden żadn* nikt nic chyba oprócz wyjątkiem zabrania* zabron* zakaz* odmówi*
odmawia*
není nesmí nemůže nemohou nemá nebude nelze nikdy žádn*
inte icke aldrig ingen inget inga ej utan ikke aldri uden uten intet forbud* förbj* vägra* nekt*
nægt*
değil yok asla hiçbir
\u0644\u0627 \u0648\u0644\u0627 \u0644\u0645 \u0648\u0644\u0645 \u0644\u0646 \u0644\u064a\u0633
\u063a\u064a\u0631 \u062f\u0648\u0646 \u0628\u062f\u0648\u0646
"""
_PHRASES = (" rather than ", " other than ", " sei denn ", " à moins ", " a menos ")
# For languages without spaces between words, or with marks that are not letters.
_ANYWHERE = (
    *"\u4e0d\u6ca1\u6c92\u65e0\u7121\u672a\u975e\u5426\u52ff\u7981\u62d2",
    *("\u306a\u3044", "\u307e\u305b\u3093", "\u306a\u304f", "\u306a\u304b\u3063"),
    *("\uc54a", "\uc5c6", "\ubabb", "\uc544\ub2c8", "\uae08\uc9c0", "\uac70\ubd80"),
    *("\u0e44\u0e21\u0e48", "\u0e2b\u0e49\u0e32\u0e21"),
    *("\u0928\u0939\u0940\u0902", "\u092c\u093f\u0928\u093e"),
)
_LETTERS = re.compile(r"[^\W\d_]+")
_WHOLE = frozenset(word for word in _NEGATING.split() if not word.endswith("*"))
_BEGINNINGS = tuple(word[:-1] for word in _NEGATING.split() if word.endswith("*"))
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
        or any(part in plain for part in _ANYWHERE)
        or _LIMITED.search(plain) is not None
    )
