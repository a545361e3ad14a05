"""SQL identifiers that need no quotes, and names that are similar to an unknown one."""

from __future__ import annotations

import difflib
import re
import unicodedata
import uuid
from collections.abc import Iterable
from datetime import datetime

_MAX_NAME = 40
# Words that PostgreSQL accepts as column names only in quotes.
_RESERVED = """
all analyse analyze and any array as asc asymmetric authorization binary both case cast check
collate collation column concurrently constraint create cross current_catalog current_date
current_role current_schema current_time current_timestamp current_user default deferrable desc
distinct do else end except false fetch for foreign freeze from full grant group having ilike in
initially inner intersect into is isnull join lateral leading left like limit localtime
localtimestamp natural not notnull null offset on only or order outer overlaps placing primary
references returning right select session_user similar some symmetric system_user table
tablesample then to trailing true union unique user using variadic verbose when where window with
"""
_WORD = re.compile(r"[a-z0-9]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def sql_identifier(name: str) -> str:
    """Convert a name to an unquoted SQL identifier in ASCII; empty if no character remains."""
    decomposed = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    name = "_".join(_WORD.findall(_HUMP.sub("_", decomposed).lower()))[:_MAX_NAME].strip("_")
    if name[:1].isdigit():
        name = f"n_{name}"
    return f"{name}_value" if name in _RESERVED.split() else name


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the three known names that are most similar to an unknown one, in one line."""
    return ", ".join(difflib.get_close_matches(name, list(known), n=3, cutoff=0)) or "none"


_SHORTEST_PART = 3


def similar_names(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three known names that may have been meant: those with it, and misspelled ones.

    The comparison does not depend on case; the most similar one is first.
    """
    by_fold = {other.casefold(): other for other in known}
    folded = name.casefold()
    near = difflib.get_close_matches(folded, by_fold, n=3)
    parts = [other for other in by_fold if len(folded) >= _SHORTEST_PART and folded in other]
    return [by_fold[other] for other in dict.fromkeys((*parts, *near))][:3]


def known_names(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: the one that was probably meant, and all known ones."""
    names = list(known)
    meant = "".join(f"Did you mean “{other}”? " for other in similar_names(name, names)[:1])
    return f"{meant}Known: {', '.join(names) or 'none'}."


def split_commas(text: str) -> tuple[str, ...]:
    """Return the parts of a text between commas, without blank ones."""
    return tuple(part for piece in text.split(",") if (part := piece.strip()))


def first_id(moment: datetime) -> uuid.UUID:
    """Return the lowest id that can be created at `moment`; all ids created later are greater."""
    return uuid.UUID(int=int(moment.timestamp() * 1000) << 80)


def id_in(text: str) -> uuid.UUID | None:
    """Return the id that a text represents, or `None`."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
