"""Phrases that announce the value of an item in a document, such as “made as of” a date."""

from __future__ import annotations

import re

_CUES: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = tuple(
    (re.compile(item, re.IGNORECASE), re.compile(cue, re.IGNORECASE | re.DOTALL))
    for item, cue in {
        r"\b(?:agreement|contract|signing) date|\bdate of (?:the |this )?(?:agreement|contract)": (
            r"\bthis\b.{0,150}?\b(?:made|entered|executed|dated|effective|as\s+of)\b"
            r"|^\W*(?:dated|as\s+of)\b|\b(?:signed|executed|witness)\b.{0,80}\bthis\b"
        ),
        r"effective|start date|commence": r"\beffective\b|\bcommenc|\bshall\s+begin\b",
        r"expir|\bends?\b|terminat\w+ date|until": (
            r"\b(?:shall|will)\s+(?:expire|terminate|continue|remain)|\bexpir(?:es?|ation)\b"
            r"|\bterm\s+of\s+this\b|\buntil\b"
        ),
        r"\bpart(?:y|ies)\b|between whom": r"\bbetween\b|\bby\s+and\s+among\b",
        r"governing law|applicable law|jurisdiction|which law": (
            r"\b(?:govern(?:s|ed)?|constru(?:ed|ction)|interpreted|enforced)\b"
        ),
        r"notice": r"\bnotice\b.{0,80}\bdays?\b|\bdays?\b.{0,80}\bnotice\b",
        r"\bterm\b|duration": r"\bterm\s+of\b|\bfor\s+a\s+(?:period|term)\b",
    }.items()
)


def cue_of(item: str) -> re.Pattern[str] | None:
    """Return the pattern of the phrases that announce an item, or `None` if none are known."""
    return next((cue for known, cue in _CUES if known.search(item)), None)
