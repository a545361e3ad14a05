"""Tests of custom templates: their versions, variables and storage."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chordwise.domain import templates
from chordwise.domain.templates import PromptTemplate

OWN = PromptTemplate(
    name="summary.analyze",
    variant="brief",
    system="$instructions $schema",
    user="$mark\n$text\n$mark",
)


def test_an_edit_changes_the_version() -> None:
    edited = replace(OWN, system="Costs in $$: ${instructions} ${schema} $kind")

    assert OWN.version == f"summary.analyze@brief-{OWN.sha256[:12]}"
    assert edited.version != OWN.version
    assert replace(edited, variant="", number=3).version == "summary.analyze@3"
    assert [*templates.problems(OWN), *templates.problems(edited)] == []


@pytest.mark.parametrize(
    ("changes", "complaint", "found"),
    [
        ({"system": "$schema $instructions $nonsense"}, "no variable $nonsense", "$nonsense"),
        ({"system": "$schema $instructions $labels"}, "no variable $labels", "$labels"),
        ({"system": "$schema $instructions 5 $ each"}, "written $$", "$"),
        ({"system": "$schema"}, "missing: $instructions", ""),
        ({"name": "classification.analyze"}, "missing: $labels", ""),
        ({"name": "extraction.analyze"}, "missing: $items", ""),
        ({"user": "$mark $text"}, "$mark before and after", ""),
        ({"user": "$mark $text $mark $text"}, "$text once", ""),
        ({"system": "$instructions $schema $text", "user": "$mark $mark"}, "$text once", ""),
    ],
)
def test_invalid_variables_are_named(changes: dict[str, str], complaint: str, found: str) -> None:
    (problem, *_) = templates.problems(replace(OWN, **changes))  # type: ignore[arg-type]  # texts

    assert complaint in problem.what
    assert problem.found == found
