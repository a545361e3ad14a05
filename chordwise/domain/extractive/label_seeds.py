"""Words that go with common labels, for texts that do not use the label's own words."""

from __future__ import annotations

from chordwise.domain.extractive import words

_SEEDS: dict[str, str] = {
    "agency": "agent appoint principal commission behalf solicit",
    "auto": "car tire oil engine gas gasoline mileage mpg vehicle brake jump battery traffic light",
    "bank": "account balance deposit checking savings transfer routing withdraw bill bills "
    "interest minimum freeze blocked pin transaction",
    "banking": "account balance deposit checking savings transfer routing withdraw bill bills "
    "interest minimum freeze blocked pin transaction",
    "business": "company market profit revenue shares sales customers deal firm economy trade ceo",
    "card": "credit apr limit visa mastercard rewards points score declined expire replacement "
    "stolen damaged annual",
    "commute": "traffic directions uber taxi distance drive bus parking route",
    "complaint": "complain unacceptable disappointed refund broken problem damaged late",
    "consulting": "consultant advice advisory services fee",
    "contract": "agreement party parties hereby herein shall obligations terminate governing "
    "witness whereof",
    "development": "develop prototype specifications milestone deliverables",
    "dining": "restaurant reservation table dinner menu reviews cancel book",
    "distributor": "distribution distribute territory products resale inventory",
    "email": "subject cc regards sent forwarded inbox attached",
    "employment": "employee employer salary benefits vacation duties position",
    "entertainment": "film movie music show actor star album song band television award concert",
    "finance": "stock stocks bond investors bank interest loan fund earnings dividend shares "
    "market",
    "financial": "stock bond investors bank interest loan fund earnings dividend shares market",
    "franchise": "franchisee franchisor restaurant royalty system location",
    "health": "patient doctor hospital disease medical treatment drug vaccine symptoms clinical",
    "home": "house rent lights furniture kitchen garden door heating thermostat mortgage",
    "hosting": "server servers website bandwidth uptime internet host",
    "inaugural": "oath citizens constitution inauguration fellow chief magistrate duties office",
    "invoice": "invoice due payment bill total amount subtotal tax quantity unit vat remit net",
    "joint": "venture jv venturers partners",
    "kitchen": "cook recipe ingredients calories food meal cooking nutrition substitute bake "
    "expire",
    "legal": "court judge plaintiff defendant law statute appeal ruling attorney lawsuit",
    "letter": "dear sincerely regards yours letter faithfully",
    "license": "licensor licensee licensed grant sublicense royalty intellectual",
    "maintenance": "support repair service updates error response",
    "manufacturing": "manufacture manufacturer product products specifications purchase supply",
    "marketing": "advertising promote promotion campaign brand customers",
    "meeting": "agenda minutes chair attendees discuss action okay meeting",
    "news": "reported according officials announced spokesman police president statement",
    "outsourcing": "outsource vendor services service levels personnel",
    "politics": "government election president vote minister party parliament senate campaign "
    "policy",
    "promotion": "promote advertising promotional event campaign",
    "question": "how what why where when who which",
    "receipt": "receipt cash change total paid store card thank purchase",
    "reseller": "resell end user products discount",
    "resume": "experience education skills university employment references degree",
    "review": "film movie plot product rating stars recommend bought director",
    "science": "research study scientists experiment theory data cells physics species",
    "service": "services provider customer perform fees",
    "spam": "free winner prize click offer claim cash guaranteed urgent subscribe",
    "speech": "fellow citizens applause tonight nation congress thank",
    "sponsorship": "sponsor event logo sponsorship rights",
    "sport": "team game match season player coach league win goal championship cup score",
    "sports": "team game match season player coach league win goal championship cup score",
    "technology": "software computer internet app device users data digital online phone",
    "transportation": "pipeline shipper carrier vessel gas freight transport",
    "travel": "flight hotel trip luggage visa vaccine passport airport airline vacation plane book "
    "carry timezone exchange translate tourist",
    "urgent": "immediately asap emergency urgent deadline today now critical",
    "weather": "rain snow temperature forecast sunny storm wind degrees",
    "work": "meeting vacation payday salary income office boss colleague holiday request",
}

# The labels' words are compared as stems, and so are the keys here.
SEEDS: dict[str, tuple[str, ...]] = {}
for _label, _listed in _SEEDS.items():
    SEEDS.setdefault(words.stem(_label), tuple(dict.fromkeys(words.terms(_listed))))
