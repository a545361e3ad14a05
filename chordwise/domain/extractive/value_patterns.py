"""Recognizing typed values in a text: dates, amounts, addresses, names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from enum import StrEnum
from typing import NamedTuple

from chordwise.domain.extractive.checkpoints import checkpoint
from chordwise.domain.extractive.words import STOPWORDS

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_FIRST = re.compile(r"([A-Za-z]{3})[a-z]*\.?\s+(\d{1,2})\D*+(?<=\s)(\d{4})")
_DAY_FIRST = re.compile(
    r"(\d{1,2})(?:st|nd|rd|th)?\s+(?:day\s+of\s+)?([A-Za-z]{3})\w*\.?,?\s+(\d{4})"
)
_SLASHED = re.compile(r"(\d{1,2})([/.])(\d{1,2})\2(\d{4})")
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}")
_LAST_MONTH = 12


def iso_date(text: str) -> str | None:
    """Return a complete date as `YYYY-MM-DD`; `None` where day, month or year is unclear.

    With slashes the month comes first unless it cannot be one, with dots the day.
    """
    if match := _ISO.search(text):
        return match.group()
    if match := _MONTH_FIRST.search(text):
        return _joined(match.group(3), _month(match.group(1)), match.group(2))
    if match := _DAY_FIRST.search(text):
        return _joined(match.group(3), _month(match.group(2)), match.group(1))
    if match := _SLASHED.search(text):
        first, mark, second, year = match.groups()
        is_day_first = mark == "." or int(first) > _LAST_MONTH
        month, day = (second, first) if is_day_first else (first, second)
        return _joined(year, int(month), day)
    return None


def _month(name: str) -> int:
    lowered = name.lower()
    return _MONTHS.index(lowered) + 1 if lowered in _MONTHS else 0


def _joined(year: str, month: int, day: str) -> str | None:
    try:
        return date(int(year), month, int(day)).isoformat()
    except ValueError:
        return None


_GIVEN = """
aaron abigail abraham adam adrian agnes ahmed alan albert alex alexander alexandra alfred ali alice
alison allan amanda amelia amy ana andrea andrew andy angela anita ann anna anne annette anthony
antonio arnold arthur barbara barry beatrice ben benjamin bernard beth betty bill bob brandon
brenda brian bruce bruno calvin carl carla carlos carol caroline catherine cathy charles charlie
charlotte cheryl chester chris christian christina christine christopher claire clara claude
claudia colin craig cynthia dan daniel daniela darren dave david deborah debra dennis derek diana
diane diego dmitri donald donna dorothy doug douglas dwight ed eddie edgar edith edmund eduardo
edward edwin eileen elaine eleanor elena elisabeth elizabeth ella ellen emily emma eric erica
ernest ethan eugene eva evelyn fatima felix fernando fiona florence frances francesco francis frank
franklin fred frederick gary gavin geoffrey george gerald gerard gloria gordon grace graham greg
gregory grover guy hannah hans harold harriet harry heather heinrich helen henri henry herbert
herman howard hugh hugo ian igor ingrid irene isaac isabel ivan jack jacob jacqueline jacques james
jan jane janet janice jason jay jean jeff jeffrey jennifer jeremy jerry jesse jessica jill jim
jimmy joan joe johan johann john johnny jon jonathan jordan jorge jose joseph joshua joyce juan
judith judy julia julian julie justin karen karl kate katherine kathleen kathryn keith kelly ken
kenneth kevin kim klaus kurt kyle larry laura lauren laurence lawrence lee leo leon leonard
leonardo leslie lewis liam linda lisa louis louise lucas lucy luis luke lyndon lynn madeleine marc
marco margaret maria marie marion mario mark martha martin marvin mary matt matthew maurice max
megan melissa michael michel michelle miguel mike millard miriam mohamed mohammed monica nancy
naomi natalie nathan neil nicholas nick nicola nicole nikola nina noah norman olga oliver olivia
omar oscar otto pablo pamela pat patricia patrick paul paula paulo pedro peter phil philip philippe
phillip pierre rachel ralph ray raymond rebecca rene richard rick rita rob robert roberto robin
rodney roger roland ron ronald rosa rose ross roy russell ruth rutherford ryan sally sam samantha
samuel sandra sarah scott sean sergei sharon sheila shirley silvia simon sofia sophia sophie
stanley stefan stephanie stephen steve steven stuart susan sven sylvia teresa terry theodore
theresa thomas tim timothy tina todd tom tony tracy ulrich ulysses vanessa vera victor victoria
vincent virginia vladimir walter warren wayne wendy werner wilhelm will william winston wolfgang
woodrow xavier yusuf yves zachary zoe
"""

_COUNTRIES = """
afghanistan, africa, albania, algeria, america, angola, argentina, armenia, asia, australia,
austria, azerbaijan, bangladesh, belarus, belgium, bolivia, brazil, britain, bulgaria, cambodia,
cameroon, canada, chile, china, colombia, costa rica, croatia, cuba, cyprus, czech republic,
denmark, dominican republic, ecuador, egypt, el salvador, england, estonia, ethiopia, europe,
finland, france, georgia, germany, ghana, great britain, greece, guatemala, haiti, honduras,
hong kong, hungary, iceland, india, indonesia, iran, iraq, ireland, israel, italy, jamaica, japan,
jordan, kazakhstan, kenya, korea, kosovo, kuwait, latvia, lebanon, libya, lithuania, luxembourg,
malaysia, malta, mexico, middle east, moldova, mongolia, morocco, mozambique, myanmar, nepal,
netherlands, new zealand, nicaragua, nigeria, north korea, norway, pakistan, palestine, panama,
paraguay, peru, philippines, poland, portugal, puerto rico, qatar, romania, russia, rwanda,
saudi arabia, scotland, senegal, serbia, singapore, slovakia, slovenia, somalia, south africa,
south korea, soviet union, spain, sri lanka, sudan, sweden, switzerland, syria, taiwan, tanzania,
thailand, the hague, tunisia, turkey, uganda, ukraine, united arab emirates, united kingdom,
united states, united states of america, uruguay, u.s, usa, uk, venezuela, vietnam, wales, yemen,
zambia, zimbabwe, north america, south america, latin america, western europe, eastern europe
"""

_STATES_AND_CITIES = """
alabama, alaska, arizona, arkansas, california, colorado, connecticut, delaware, florida, hawaii,
idaho, illinois, indiana, iowa, kansas, kentucky, louisiana, maine, maryland, massachusetts,
michigan, minnesota, mississippi, missouri, montana, nebraska, nevada, new hampshire, new jersey,
new mexico, new york, north carolina, north dakota, ohio, oklahoma, oregon, pennsylvania,
rhode island, south carolina, south dakota, tennessee, texas, utah, vermont, virginia, washington,
west virginia, wisconsin, wyoming, ontario, quebec, british columbia, alberta, amsterdam, athens,
atlanta, austin, baghdad, baltimore, bangkok, barcelona, beijing, berlin, boston, brussels,
budapest, buenos aires, cairo, cambridge, chicago, cleveland, copenhagen, dallas, delhi, denver,
detroit, dublin, edinburgh, frankfurt, geneva, glasgow, hamburg, helsinki, houston, istanbul,
jakarta, jerusalem, kyiv, lagos, las vegas, lisbon, london, los angeles, madrid, manchester, manila,
melbourne, miami, milan, minneapolis, montreal, moscow, mumbai, munich, nairobi, new delhi,
new orleans, new york city, oslo, oxford, palo alto, paris, philadelphia, phoenix, pittsburgh,
portland, prague, rio de janeiro, rome, san antonio, san diego, san francisco, san jose, santiago,
sao paulo, seattle, seoul, shanghai, st. louis, stockholm, sydney, tel aviv, tokyo, toronto,
vancouver, venice, vienna, warsaw, washington dc, washington d.c, zurich, manhattan, brooklyn
"""

_PLACE_FORMS = """
avenue bay beach boulevard bridge canyon city county desert district forest garden hills island
islands lake mountain mountains ocean park peninsula plaza province river road sea square street
valley village
"""

_ORGANIZATION_FORMS = """
academy administration ag agency airlines alliance associates association authority bank bundesbank
bureau capital chamber club co college commission committee communications companies company
congress consortium consulting cooperative corp corporation council court department electronics
energy enterprises entertainment federation financial forces foundation fund gmbh group holdings
hospital hotels inc incorporated industries institute institution insurance international
laboratories labs league library limited llc llp ltd media ministry motors museum nations networks
office orchestra organisation organization parliament partners pharmaceuticals plc police press
productions publishing records resources school senate services society solutions studios systems
team technologies technology theatre therapeutics trust union university ventures b.v s.a n.v l.p
l.l.c lp
"""

_TIMES = """
monday tuesday wednesday thursday friday saturday sunday january february march april may june july
august september october november december spring summer autumn winter today tomorrow yesterday
dear sincerely regards thanks thank please hello hi subject re cc page chapter section article
exhibit schedule annex appendix table figure note name title by signature signed its attn whereas
"""

_ORDINARY = """
agreement agreements amendment article attachment confidential consultant contract date effective
exhibit if information is no parties party schedule section shall speaker term terms the
"""

_WELL_KNOWN = """
congress, senate, parliament, house of representatives, supreme court, nato, united nations, un,
eu, democratic party, republican party, labour party, conservative party, european union, european
commission, world bank, white house, nasa, google, microsoft, amazon, apple, facebook, ibm, intel,
twitter, wikipedia, harvard, stanford, mit, bbc, cnn, reuters, sec, irs, fbi, treasury, pentagon,
commission, bundestag, new york stock exchange
"""

_ACRONYMS = "ceo cfo cto faq pdf html http usd eur gbp exv doc usa iii vii the and xii viii"


def _listed(text: str) -> frozenset[str]:
    return frozenset(" ".join(name.split()) for name in text.split(","))


GIVEN_NAMES = frozenset(_GIVEN.split())
PLACES = _listed(_COUNTRIES) | _listed(_STATES_AND_CITIES)
PLACE_WORDS = frozenset(_PLACE_FORMS.split())
ORGANIZATION_WORDS = frozenset(_ORGANIZATION_FORMS.split())
ORGANIZATIONS = _listed(_WELL_KNOWN)
ORDINARY_WORDS = frozenset(_ORDINARY.split())
TIME_WORDS = frozenset(_TIMES.split())
ORDINARY_ACRONYMS = frozenset(_ACRONYMS.split())


class Bearer(StrEnum):
    """Who or what a name belongs to."""

    PERSON = "person"
    ORGANIZATION = "organization"
    PLACE = "place"
    UNKNOWN = "unknown"


class Name(NamedTuple):
    """A name as it stands in a text."""

    text: str
    start_char: int
    bearer: Bearer


_WORD = (
    r"(?:(?:[A-Z]\.)+|(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Inc|Corp|Ltd|Co)\."
    r"|[A-ZÀ-ÖØ-Þ](?:[\w&-]|['’](?!s\b))*)"
)
_LINK = r"(?:of the|of|de|la|van|von|der|&)"
_NAME = re.compile(
    rf"(?<![\w@])(?:{_WORD})(?:[ \t](?:{_LINK}[ \t])?{_WORD}){{0,5}}"
    r"(?:,? (?:Inc|Corp|Ltd|LLC|L\.L\.C|L\.P|LP|Co|B\.V|S\.A|N\.V|PLC|GmbH|AG|plc)\b\.?)?"
)
_TITLE = re.compile(
    r"(?:Mr|Mrs|Ms|Dr|Prof|Professor|President|Senator|Sir|Lord|Lady|Judge|Justice|Captain"
    r"|General|Governor|Minister|King|Queen|Secretary|Chairman)\.?\s*$"
)
_TITLED = re.compile(
    r"^(?:Mr|Mrs|Ms|Dr|Prof|Professor|President|Senator|Sir|Lord|Lady|Judge|Justice|Captain"
    r"|Governor|King|Queen)\b\.?\s+(?=[A-Z])"
)
_WHEREABOUTS = re.compile(
    r"\b(?:born|lives?|lived|living|located|situated|based|headquartered|held|resid\w+|arrived"
    r"|travell?ed|moved|flew|offices?|city|town|capital|village|province|region)"
    r"\s+(?:in|at|near|of|to)\s+(?:the\s+)?$"
)
_ACRONYM = re.compile(r"^(?:[A-Z]{3,6}|EU|UN)$")
_LOOK_BACK = 30
_MAX_PERSON_WORDS = 3


def names(text: str) -> Iterator[Name]:
    """Yield what is written like a name, in order."""
    for match in _NAME.finditer(text):
        for part_start, part in _parts(match.start(), match.group()):
            start, name = _without_ordinary_lead(part_start, part)
            name = _without_ordinary_end(name)
            if name:
                before = text[max(0, start - _LOOK_BACK) : start]
                yield Name(name, start, bearer(name, before, is_alone=_opens(text, start)))


def _parts(start: int, name: str) -> Iterator[tuple[int, str]]:
    """Part a person from a place or an organization: “Ann Lee of Acme”, not “Bank of America”."""
    person, joint, other = name.partition(" of ")
    if joint and is_person(person.lower().split()):
        yield start, person
        yield start + len(person) + len(joint), other
    else:
        yield start, name


def _without_ordinary_lead(start: int, name: str) -> tuple[int, str]:
    """Drop function words at the front, which are capitalized where a sentence begins."""
    while name:
        first, _, rest = name.partition(" ")
        word = first.lower().strip(".'’")
        if word not in STOPWORDS and word not in TIME_WORDS:
            return start, name
        start, name = start + len(first) + 1, rest
    return start, ""


def _without_ordinary_end(name: str) -> str:
    """Drop labels that follow a name on its line, such as “By” and “Title” in signatures."""
    while " " in name:
        rest, _, last = name.rpartition(" ")
        if last.lower() not in STOPWORDS and last.lower() not in TIME_WORDS:
            break
        name = rest
    return name


def _opens(text: str, start: int) -> bool:
    """Tell whether a capital at this place may be owed to the start of a sentence or a line."""
    before = text[max(0, start - 3) : start].rstrip(" \t\"'“‘(")
    return not before or before[-1] in ".!?:;\n•*-"


def bearer(name: str, before: str, *, is_alone: bool) -> Bearer:
    """Guess the bearer from the name's words and from what stands before it."""
    parts = [part.strip(".,'’").lower() for part in name.split()]
    is_known = " ".join(parts) in ORGANIZATIONS
    if not is_known and not ORDINARY_WORDS.isdisjoint(parts):
        return Bearer.UNKNOWN
    if is_organization(parts):
        return Bearer.ORGANIZATION
    if _TITLED.match(name) or (_TITLE.search(before) and len(parts) <= _MAX_PERSON_WORDS):
        return Bearer.PERSON
    if " ".join(parts) in PLACES or parts[-1] in PLACE_WORDS:
        return Bearer.PLACE
    if is_person(parts):
        return Bearer.PERSON
    return _by_context(name, parts, before, is_alone=is_alone)


def _by_context(name: str, parts: list[str], before: str, *, is_alone: bool) -> Bearer:
    if _ACRONYM.match(name) and not is_alone and name.lower() not in ORDINARY_ACRONYMS:
        return Bearer.ORGANIZATION
    is_capitalized = not name.isupper() and name[-1].isalpha()
    if _WHEREABOUTS.search(before) and is_capitalized and len(parts) <= _MAX_PERSON_WORDS:
        return Bearer.PLACE
    return Bearer.UNKNOWN


def is_organization(parts: list[str]) -> bool:
    """Tell an organization by a form of organizations beside a name, or by being well known."""
    has_form = not ORGANIZATION_WORDS.isdisjoint(parts)
    return (has_form and len(parts) > 1) or " ".join(parts) in ORGANIZATIONS


def is_person(parts: list[str]) -> bool:
    """Tell a person's name by a given name at its front, in lower case."""
    return 1 < len(parts) <= _MAX_PERSON_WORDS + 1 and parts[0] in GIVEN_NAMES


class Kind(StrEnum):
    """A type of value that can be told by how it is written."""

    DATE = "date"
    MONEY = "money"
    PERCENT = "percent"
    EMAIL = "email"
    PHONE = "phone"
    URL = "url"
    DURATION = "duration"
    LAW = "law"
    NUMBER = "number"
    IDENTIFIER = "identifier"
    PERSON = "person"
    ORGANIZATION = "organization"
    PLACE = "place"


class Value(NamedTuple):
    """A value as it stands in a text, with its place there."""

    text: str
    start_char: int


_LONGEST_ABBREVIATION = 3
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_AMOUNT = r"\d[\d,]*+(?:\.\d+)?(?:\s?(?:million|billion|trillion|thousand|bn)\b)?"
_CURRENCY = r"(?:USD|EUR|GBP|CHF|JPY|CAD|AUD|INR|CNY|Rs\.?)"
_COUNT = (
    r"(?:\d+|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|eighteen|twenty"
    r"|thirty|forty-five|sixty|ninety)(?:\s*\(\s*\d+\s*\))?"
)
_STATE_WORDS = r"(?:(?:State|Commonwealth|Province|Republic|Kingdom|People['’]s Republic)\s+of\s+)?"
_PROPER = r"[A-Z][\w.]+(?:\s+(?:and\s+)?[A-Z][\w.]+){0,3}"

_PATTERNS: dict[Kind, re.Pattern[str]] = {
    Kind.DATE: re.compile(
        rf"\b{_MONTH}\s+{_DAY}(?:\s*+,)?\s++\d{{4}}\b"
        rf"|\b{_DAY}\s+(?:day\s+of\s+)?{_MONTH}(?:\s*+,)?\s++\d{{4}}\b"
        r"|\b\d{4}-\d{2}-\d{2}\b|\b\d{1,2}[/.]\d{1,2}[/.](?:\d{4}|\d{2})\b"
        rf"|\b{_MONTH}(?:\s*+,)?\s++\d{{4}}\b|\b{_MONTH}\s+{_DAY}\b|\b{_DAY}\s+{_MONTH}(?=\W)"
        r"|(?:(?<=\b[Ii]n )|(?<=\bof )|(?<=\bby )|(?<=\b[Ss]ince )|(?<=\buntil )|(?<=\bfrom )"
        r"|(?<=\byear )|(?<=\bto ))(?:1[5-9]|20)\d\d\b(?!\s*[%,.]?\d)"
    ),
    Kind.MONEY: re.compile(
        rf"(?:\b(?:US|CA|AU|HK)\s?)?[$€£¥₹]\s?{_AMOUNT}|\b{_CURRENCY}\s?{_AMOUNT}"
        rf"|\b{_AMOUNT}\s?(?:(?:US\s)?dollars\b|euros?\b|pounds\b|cents\b|€|{_CURRENCY}\b)"
    ),
    Kind.PERCENT: re.compile(r"\d[\d.,]*+\s?(?:%|percent\b|per\s?cent\b|percentage points)"),
    Kind.EMAIL: re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}\b"),
    Kind.PHONE: re.compile(
        r"(?<![\w.,/$€£-])(?!\d{4}-\d\d-\d\d\b)(?:\+\d[\d ()./-]{6,16}\d"
        r"|\(?\d{3,5}\)?[ ./-]\d{3,4}[ ./-]?\d{3,4})(?![\w/-])"
    ),
    Kind.URL: re.compile(r"\b(?:https?://|www\.)[^\s<>\"')\]]+[^\s<>\"')\].,;:!?]"),
    Kind.DURATION: re.compile(
        rf"\b{_COUNT}[\s-]+(?:business\s+|calendar\s+|working\s+)?"
        r"(?:days?|weeks?|months?|years?|hours?|minutes?)\b",
        re.IGNORECASE,
    ),
    Kind.LAW: re.compile(rf"\blaws?\s+(?:of|in\s+force\s+in)\s+(?:the\s+)?{_STATE_WORDS}{_PROPER}"),
    Kind.NUMBER: re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?![\d%])"),
    Kind.IDENTIFIER: re.compile(r"(?<![\w/-])(?=[A-Z/-]*\d)[A-Z0-9][A-Z0-9/-]{2,29}(?![\w/-])"),
}
_NAMES = {
    Kind.PERSON: Bearer.PERSON,
    Kind.ORGANIZATION: Bearer.ORGANIZATION,
    Kind.PLACE: Bearer.PLACE,
}


def values(kind: Kind, text: str) -> Iterator[Value]:
    """Yield the values of a kind in order."""
    checkpoint()
    if kind in _NAMES:
        yield from (
            Value(name.text, name.start_char) for name in names(text) if name.bearer is _NAMES[kind]
        )
        return
    for match in _PATTERNS[kind].finditer(text):
        yield Value(_without_full_stop(match.group()), match.start())


def _without_full_stop(text: str) -> str:
    """Drop the full stop of the sentence, but not that of an abbreviation."""
    bare = text.removesuffix(".")
    return bare if len(bare.split()[-1]) > _LONGEST_ABBREVIATION else text
