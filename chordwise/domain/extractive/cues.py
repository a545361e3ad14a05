"""The words by which English marks the role of a sentence in an argument."""

from __future__ import annotations

import re


def _any_of(phrases: str) -> re.Pattern[str]:
    """Compile phrases, one a line, into one pattern that matches any of them as words."""
    listed = (line.strip().replace(" ", r"\s++") for line in phrases.strip().splitlines())
    return re.compile(rf"\b(?:{'|'.join(listed)})\b", re.IGNORECASE)


FINAL = _any_of(
    """
    in conclusion
    to conclude
    in summary
    to summarize
    to sum up
    in closing
    we conclude
    i conclude
    concluded that
    concludes that
    the conclusion is
    """
)

CONCLUSION = _any_of(
    """
    in conclusion
    to conclude
    in summary
    to summarize
    to sum up
    in closing
    we conclude
    i conclude
    conclude[sd]? that
    the conclusion is
    therefore
    thus
    hence
    accordingly
    consequently
    ultimately
    overall
    all in all
    as a result
    (?:results|findings|experiments|data) (?:show|suggest|demonstrate|indicate)
    we (?:show|find|found|demonstrate|recommend|propose|resolve)
    it follows that
    that is why
    """
)

INFERENCE = _any_of(
    """
    therefore
    thus
    hence
    thereby
    so that
    accordingly
    consequently
    as a result
    as a consequence
    it follows
    implies
    imply
    which means
    this means
    that means
    suggests? that
    leads? to
    must(?: therefore| be)
    if .{1,120} then
    so we
    so it
    that is why
    """
)

COUNTERARGUMENT = _any_of(
    """
    however
    nevertheless
    nonetheless
    although
    even though
    though
    despite
    in spite of
    on the other hand
    on the contrary
    by contrast
    in contrast
    critics
    opponents
    some (?:say|argue|claim|believe|object)
    it may be (?:said|objected|argued)
    admittedly
    whereas
    yet
    but
    """
)

EVIDENCE = _any_of(
    """
    for example
    for instance
    such as
    according to
    as shown
    evidence
    statistics?
    surveys?
    stud(?:y|ies)
    data
    experiments?
    research
    percent
    per cent
    reported
    observed
    measured
    documented
    proves?
    demonstrates?
    in (?:1[5-9]|20)\\d\\d
    (?:million|billion)
    """
)

PREMISE = _any_of(
    """
    because
    since
    given that
    given the
    assuming
    assume
    suppose
    for the reason that
    due to
    owing to
    as long as
    whereas
    we hold
    we know
    it is (?:clear|known|true|evident)
    the (?:fact|reason|principle) (?:is|that)
    inasmuch as
    in view of
    considering
    """
)

FIGURE = re.compile(r"\d[\d.,]*+\s?%|[$€£]\s?\d[\d.,]*|\b\d{1,3}(?:,\d{3})+\b|\b\d+\.\d+\b")
SOURCE = re.compile(r"\b[Aa]ccording to\b|\[\d+\]|\(\w[^()]{2,40},\s?(?:1[5-9]|20)\d\d\)|https?://")
HEDGE = _any_of(
    """
    perhaps
    maybe
    might
    possibly
    probably
    seems?
    appears?
    presumably
    it is likely
    """
)
ABSOLUTE = _any_of(
    """
    always
    never
    everyone
    nobody
    no one
    undoubtedly
    obviously
    certainly
    of course
    without (?:a )?doubt
    must
    """
)
