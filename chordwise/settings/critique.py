"""Critique: the principles that answers are examined against."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field, StringConstraints

from chordwise.settings.sections import Section

Principle: TypeAlias = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)
]
Principles: TypeAlias = Annotated[tuple[Principle, ...], Field(max_length=20)]


class CritiqueSettings(Section):
    """The table `[critique]` (docs/votes-and-critique.md)."""

    principles: Principles = Field(
        default=(), description="Empty: those of all types and of each analysis type."
    )
