"""Which folders are inboxes, where their files go afterwards, and which profile binds where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from chordwise.domain.inbox_names import DONE, FAILED, profile_of
from chordwise.errors import ConfigurationError
from chordwise.settings import Settings
from chordwise.settings.sections import folders_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One inbox: an absolute path without links."""

    folder: Path

    @property
    def done(self) -> Path:
        """Where files go whose analyses have all succeeded."""
        return self.folder.parent / DONE

    @property
    def failed(self) -> Path:
        """Where all others go."""
        return self.folder.parent / FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The inboxes in the order of the settings, and the folders that profiles are bound to."""

    inboxes: tuple[Place, ...]
    bindings: Mapping[PurePath, str]

    def profile_of(self, file: Path) -> str:
        """Return the profile that a file belongs to; empty where none binds."""
        return profile_of(file.parent, self.bindings)

    def holding(self, file: Path) -> Place | None:
        """Return the inbox that a path lies in."""
        found = (each for each in self.inboxes if file.is_relative_to(each.folder))
        return next(found, None)


def places(settings: Settings) -> Places:
    """Return what the settings say, made absolute; nothing is created.

    Raises:
        ConfigurationError: Inboxes that overlap each other, a profile's folder outside of them, or
            the same one for two profiles while inboxes are watched.
    """
    base = settings.base_folder
    folders = [(base / each.expanduser()).resolve() for each in settings.inbox.folders]
    inboxes = tuple(Place(folder=each) for each in dict.fromkeys(folders))
    for inbox in inboxes:
        for other in inboxes:
            _refuse_overlap(inbox, other)
    return Places(inboxes=inboxes, bindings=_bindings(settings, inboxes))


def _refuse_overlap(inbox: Place, other: Place) -> None:
    within = inbox is not other and other.folder.is_relative_to(inbox.folder)
    if within or inbox.folder in {other.done, other.failed}:
        raise ConfigurationError(
            f"inbox.folders: {other.folder} and {inbox.folder} overlap.",
            "An inbox lies neither in another one nor where another one's done files go.",
        )


def _bindings(settings: Settings, inboxes: tuple[Place, ...]) -> dict[PurePath, str]:
    folders = [each.folder for each in inboxes]
    found: dict[PurePath, str] = {}
    for name, profile in settings.profiles.items():
        try:
            own: dict[PurePath, str] = {
                each.resolve(): name for each in folders_of(name, profile, folders)
            }
        except ValueError as error:
            hint = "Name a sub-folder, or an absolute path."
            raise ConfigurationError(f"{error}.", hint) from error
        if settings.inbox.enabled:
            _refuse_rivals(found, own, folders)
        found |= own
    return found


def _refuse_rivals(
    found: Mapping[PurePath, str], own: Mapping[PurePath, str], inboxes: Iterable[Path]
) -> None:
    """Refuse a folder of an inbox for a second profile: its files can belong to one only."""
    for each in found.keys() & own.keys():
        if any(each.is_relative_to(inbox) for inbox in inboxes):
            raise ConfigurationError(
                f"profiles.{found[each]} and profiles.{own[each]} are both for {each}.",
                "Give one of them another folder; where none is set, it is the profile's name.",
            )
