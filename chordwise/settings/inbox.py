"""The inbox: folders that are watched, and how."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveFloat

from chordwise.settings.sections import Section


class InboxSettings(Section):
    """The table `[inbox]`; without any folder nothing is watched (docs/inbox.md)."""

    enabled: bool = True
    folders: tuple[Path, ...] = Field(default=(), description="Relative to chordwise.toml.")
    stability_seconds: PositiveFloat = Field(
        default=5, description="A file is complete when nothing happened to it for so long."
    )
    quiet_seconds: PositiveFloat = Field(
        default=10, description="A run is closed when no file came for so long."
    )
    rescan_seconds: PositiveFloat = Field(
        default=300, description="A full look at the folders, for what no event told of."
    )
    polling: bool = Field(default=False, description="For network shares, which tell no events.")
    polling_seconds: PositiveFloat = 2

    @property
    def is_watched(self) -> bool:
        """Whether the scheduler has something to watch."""
        return self.enabled and bool(self.folders)
