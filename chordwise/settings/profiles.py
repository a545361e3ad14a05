"""Profiles: what is asked of the documents of a folder, under a name of the user's choice."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

from pydantic import Field, field_validator

from chordwise.domain.inbox_names import is_inside
from chordwise.domain.lanes import Lane
from chordwise.domain.tasks import MOST_VOTES, AnalysisType
from chordwise.settings.critique import Principles
from chordwise.settings.sections import Section


class ProfileSettings(Section):
    """One table `[profiles.NAME]`; a side-car beside a file has the same entries for that file."""

    folder: Path | None = Field(
        default=None, description="Relative to an inbox, or absolute; unset: the profile's name."
    )
    types: tuple[AnalysisType, ...] = Field(
        default=(), description="Empty: what schema and labels imply, else summary."
    )
    instructions: str = ""
    labels: tuple[str, ...] = Field(default=(), description="For classifications, two or more.")
    schema_file: Path | None = Field(
        default=None, alias="schema", description="A JSON Schema, relative to chordwise.toml."
    )
    model: str = Field(default="", description="Empty: the setting `model`.")
    lane: Lane = Field(default=Lane.ONLINE, description="batch: half the price, within a day.")
    nightly: bool = Field(default=False, description="Let the calls of other runs go first.")
    budget_usd: Decimal | None = Field(
        default=None, gt=0, lt=1_000_000, decimal_places=8, description="Of one run."
    )
    confidence_threshold: float = Field(default=0.0, ge=0, le=1)
    critique: bool = Field(default=False, description="Examine answers, and mend them once.")
    principles: Principles = Field(
        default=(), description="To examine by, and then they are; empty: [critique]."
    )
    votes: int = Field(
        default=1, ge=1, le=MOST_VOTES, description="How often a question is asked; 1: no vote."
    )
    text_column: str = Field(
        default="", description="CSV, JSONL and XLSX: a row for each document, its text from here."
    )
    id_column: str = Field(default="", description="The column that names the rows.")

    @field_validator("schema_file", "budget_usd", mode="before")
    @classmethod
    def unset(cls, value: object) -> object:
        """Take an empty text for none: so a side-car takes away what its profile has."""
        return None if value == "" else value


def folders_of(name: str, profile: ProfileSettings, inboxes: Iterable[Path]) -> tuple[Path, ...]:
    """Return the folders that a profile is for: its absolute one, else one in each inbox.

    Raises:
        ValueError: It leads out of the inboxes.
    """
    folder = (profile.folder or Path(name)).expanduser()
    if folder.is_absolute():
        return (folder,)
    if not is_inside(folder / "file"):
        raise ValueError(f"profiles.{name}.folder leads out of the inbox: {folder}")
    return tuple(inbox / folder for inbox in inboxes)
