"""Finding the title of a document at its top."""

from __future__ import annotations

import re
from collections.abc import Sequence

from chordwise.domain.extractive.sentences import Sentence

_WITHIN = 12
_FORM = (
    r"(?:AGREEMENT|Agreement|CONTRACT|Contract|REPORT|Report|ADDENDUM|Addendum|PLAN|Plan|POLICY"
    r"|Policy|MEMORANDUM|Memorandum|LEASE|Lease|INVOICE|Invoice|STATEMENT|Statement|ADDRESS|Address)"
)
_HEADING_WORD = r"(?:[A-Z0-9]\S*+|(?:of|and|the|for|in|to|a)(?!\S))"
_HEADING = re.compile(
    r"(?=.{4,120}$)(?!.*[.:;,]$)(?!(?i:exhibit|ex-|source|page|confidential|appendix|execution)\b)"
    rf"(?:[^a-z]+|{_HEADING_WORD}(?:\s++{_HEADING_WORD})*+)$"
)
_NAMES_FORM = re.compile(_FORM)
_NAMED = re.compile(rf"(?:[A-Z][\w&/-]*,?\s+(?:and\s+|of\s+|for\s+)?){{1,8}}{_FORM}\b")
_ARTICLE = re.compile(r"^(?:This|THIS|The|THE|Exhibit\s+\S+|EXHIBIT\s+\S+)\s+")


def title(sentences: Sequence[Sentence]) -> tuple[str, Sentence] | None:
    """Return the title with the sentence that it stands in; `None` where no line looks like one.

    A line written like a heading that names a form of document goes first, then the name of a form
    anywhere at the top, then any heading.
    """
    top = sentences[:_WITHIN]
    headings = [one for one in top if _HEADING.match(one.text) and len(one.terms) > 1]
    formal = [one for one in headings if _NAMES_FORM.search(one.text)]
    if formal:
        return formal[0].text, formal[0]
    named = ((match.group(), one) for one in top if (match := _NAMED.search(one.text)))
    for name, sentence in named:
        return _ARTICLE.sub("", name), sentence
    return (headings[0].text, headings[0]) if headings else None
