"""The batch lane: when questions are handed in together, and how long their answers may take."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from chordwise.settings.sections import Section


class BatchSettings(Section):
    """The table `[batch]` (docs/batch-lane.md)."""

    gather_seconds: NonNegativeFloat = Field(
        default=30, description="Without a new question, then what there is goes out."
    )
    poll_seconds: PositiveFloat = Field(default=30, description="The first look at a batch.")
    poll_max_seconds: PositiveFloat = Field(default=600, description="Between later looks.")
    spill_over_hours: PositiveFloat = Field(
        default=20, description="After which the rest is asked online."
    )
    most_requests: PositiveInt = Field(default=20_000, le=50_000, description="In one batch.")
