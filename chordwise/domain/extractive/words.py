"""Cutting text into words and terms, in scripts with and without spaces between words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

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


_FUNCTION_WORDS = """
a about above across after again against all almost along already also although always am among an
and another any anyone anything are aren't around as at away be became because become been before
began behind being below beside between beyond both but by came can can't cannot come could couldn't
did didn't do does doesn't doing don't done down during each either else enough even ever every
everyone everything few for from further gave get gets getting give given go goes going gone got had
hadn't has hasn't have haven't having he he'd he'll he's hence her here hers herself him himself his
how however i i'd i'll i'm i've if in indeed instead into is isn't it it'd it'll it's its itself
just keep kept knew know known last later least less let let's like made make makes making many may
maybe me might mine more moreover most much must my myself near need neither never nevertheless next
no none nor not nothing now of off often oh ok okay on once one one's only onto or other others our
ours ourselves out over own per perhaps put quite rather really said same saw say saying says see
seem seemed seems seen shall she she'd she'll she's should shouldn't since so some somebody someone
something sometimes somewhere still such take taken than that that's the their theirs them
themselves then there there's therefore these they they'd they'll they're they've thing things think
this those though through thus to together too took toward towards under unless until up upon us use
used uses using very via want wants was wasn't way we we'd we'll we're we've well went were weren't
what what's whatever when where whereas wherever whether which while who who's whoever whole whom
whose why will with within without won't would wouldn't yeah yes yet you you'd you'll you're you've
your yours yourself yourselves uh um hmm mm gonna etc hereby herein hereof hereto thereof thereto
therein pursuant
"""
STOPWORDS = frozenset(_FUNCTION_WORDS.split())
_GENERIC = """
able according actually anyway asked believe best better big bit call called certain change day days
different early end fact far feel find first five following found four get good great group happen
help hundred important kind large left little long look looking lot main matter mean means members
million months mr mrs ms nbsp new number old particular part people place point possible present
present problem provide provided question right say section second set several show shown shows six
small sort start stuff sure talk tell ten th thank third thought thousand three time times today
total tried try trying two understand way ways week weeks whatever word words work year years
january february march april june july august september october november december monday tuesday
wednesday thursday friday saturday sunday dear sincerely regards
"""
# Content words too common to name a topic; they still count when sentences are compared.
GENERIC_WORDS = frozenset(_GENERIC.split())
_FOREIGN = """
aber alle allem allen aller alles also anderen auch beim bereits dabei dadurch damit dann daran
darauf daraus dass dazu deren dessen diese diesem diesen dieser dieses doch durch einem einen einer
eines eine einige gegen haben hatte hatten ihre ihrem ihren ihrer immer jede jeder jedoch kann kein
keine können mehr muss müssen nach nicht noch nur oder ohne schon sehr sein seine seinem seinen
seiner seit sich sind sowie über unter viele vom wegen weil wenn werden wird wurde wurden zwischen
zum zur ainsi alors aucun aussi autre autres avait avec avoir cela cette ceux chaque comme dans
depuis donc elle elles encore entre était être fait leur leurs lors mais même notre nous pour plus
quand quelque sans selon sera sont sous tous tout toute toutes très vous algunas algunos antes como
cuando cual desde donde durante ella ellos entre eran esta estas este esto estos están fueron había
hasta hacia muchos mucho mientras otra otras otro otros para pero porque puede pueden según sino
sobre también tanto tiene tienen toda todas todo todos unos alla alle anche ancora avere come così
cosa dalla dalle degli della delle dello dopo essere hanno loro molto nella nelle negli nello ogni
perché però più prima quale quando quella quelle quello questa queste questo questi sono stata stato
sulla sulle tutti tutto aan bij deze door haar heeft hebben hij hun kunnen maar meer naar niet onder
over toen tussen veel voor waren werd wordt worden zijn zich ainda apenas assim depois dessa desse
ele eles essa esse estão foram isso mais mesmo muito nossa não onde pela pelo pode quem sendo seus
suas também tem uma você
"""
FOREIGN_FUNCTION_WORDS = frozenset(_FOREIGN.split())
