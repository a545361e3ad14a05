"""Words that negate or limit a sentence."""

from __future__ import annotations

import re
import unicodedata

# English, German, Dutch, French, Spanish, Italian, Portuguese, Russian and Ukrainian, Polish,
# Czech, Swedish, Danish and Norwegian, Turkish and Arabic; an asterisk stands for an ending.
_WORDS = """
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
_WHOLE = frozenset(word for word in _WORDS.split() if not word.endswith("*"))
_BEGINNINGS = tuple(word[:-1] for word in _WORDS.split() if word.endswith("*"))
_LIMITED = re.compile(
    r"(?<![^\W\d_])(?:no(?!\.\s?\d)|non(?!-)|mai(?!\s\d)|without(?! limitation)"
    r"|not(?!(?<=but not) limited to))(?![^\W\d_])"
    r"|n['’]t(?![^\W\d_])|(?<![^\W\d_])n['’]"
)


def denies(text: str) -> bool:
    """Return whether a text has a word that negates, limits or refuses the statement around it."""
    plain = unicodedata.normalize("NFKC", text).lower()
    words = _LETTERS.findall(plain)
    padded = f" {' '.join(words)} "
    return (
        any(word in _WHOLE or word.startswith(_BEGINNINGS) for word in words)
        or any(phrase in padded for phrase in _PHRASES)
        or any(part in plain for part in _ANYWHERE)
        or _LIMITED.search(plain) is not None
    )
