"""Detection of complete files: a file is complete if it has not changed for a while."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """The attributes that change when a file is written to or replaced."""

    inode: int
    size: int
    modified_ns: int


Found: TypeAlias = tuple[PurePath, tuple[Fingerprint, ...]]
"""A file in a folder, with the fingerprints of itself and of its side-car."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """The last observed state of a file and its side-car; `quiet_since` is in seconds."""

    path: PurePath
    prints: tuple[Fingerprint, ...]
    quiet_since: float

    @property
    def age(self) -> tuple[int, bytes]:
        """The sort key of files, the oldest first."""
        return self.prints[0].modified_ns, bytes(self.path)


class Sightings:
    """The observed files, at most `most` at a time, so that memory use is bounded."""

    def __init__(self, quiet_seconds: float, most: int) -> None:
        self._quiet_seconds = quiet_seconds
        self._most = most
        self._seen: dict[PurePath, Sighting] = {}

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def has_room(self) -> bool:
        """Whether less than half of the capacity is used, so that a further scan is useful."""
        return len(self._seen) < max(1, self._most // 2)

    def replace(self, found: Iterable[Found], now: float) -> int:
        """Observe the files that a scan found, oldest first; return how many had no room.

        Files that the scan did not find are forgotten, and the quiet period of changed files starts
        again.
        """
        before, self._seen = self._seen, {}
        left_out = 0
        for path, prints in found:
            if len(self._seen) >= self._most:
                left_out += 1
                continue
            known = before.get(path)
            if known is None or known.prints != prints:
                known = Sighting(path=path, prints=prints, quiet_since=now)
            self._seen[path] = known
        return left_out

    def disturb(self, path: PurePath, now: float) -> None:
        """Restart the quiet period of a file."""
        known = self._seen.get(path)
        if known is not None:
            self._seen[path] = Sighting(path=path, prints=known.prints, quiet_since=now)

    def forget(self, path: PurePath) -> None:
        """Stop observing a file."""
        self._seen.pop(path, None)

    def ripe(self, now: float) -> list[Sighting]:
        """Return the files that have been quiet for long enough, the oldest first."""
        until = now - self._quiet_seconds
        return sorted(
            (each for each in self._seen.values() if each.quiet_since <= until),
            key=lambda each: each.age,
        )
