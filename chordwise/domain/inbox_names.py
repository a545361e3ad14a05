"""The names related to a file of an inbox: side-car, note, free names, and its profile."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import PurePath

SIDE_CAR = ".chordwise.toml"
NOTE = ".json"
DONE = "done"
FAILED = "failed"
MARK = ".chordwise-"
"""The prefix of the hidden name of a file while it is copied between file systems."""
_MAX_BYTES = 255


def side_car_name(name: str) -> str:
    """Return the name of the side-car of a file."""
    return f"{name}{SIDE_CAR}"


def side_car_owner(name: str) -> str | None:
    """Return the name of the file that a side-car belongs to, ignoring case; otherwise `None`."""
    return (name[: -len(SIDE_CAR)] or None) if name.lower().endswith(SIDE_CAR) else None


def name_of_note(name: str) -> str:
    """Return the name of the note beside a file; a very long name is shortened."""
    return f"{_cut(name, len(NOTE))}{NOTE}"


def names_like(name: str) -> Iterator[str]:
    """Yield the name itself, then `NAME (2).EXT` and so on, each within the length limit."""
    yield name
    stem, extension = os.path.splitext(name)  # noqa: PTH122 - a name, not a path
    for number in itertools.count(2):
        end = f" ({number}){extension}"
        yield f"{_cut(stem, len(os.fsencode(end)))}{end}"


def profile_of(folder: PurePath, bindings: Mapping[PurePath, str]) -> str:
    """Return the profile of the deepest bound folder that contains `folder`; empty if none does."""
    for each in (folder, *folder.parents):
        if each in bindings:
            return bindings[each]
    return ""


def is_inside(relative: PurePath) -> bool:
    """Return whether a relative path stays below its base folder."""
    return not relative.is_absolute() and bool(relative.parts) and ".." not in relative.parts


def _cut(name: str, reserved_bytes: int) -> str:
    """Shorten a name so that `reserved_bytes` remain free; characters are not split."""
    encoded = os.fsencode(name)
    most = _MAX_BYTES - reserved_bytes
    if len(encoded) <= most:
        return name
    while encoded[most] & 0xC0 == 0x80:  # noqa: PLR2004 - the middle of a character in UTF-8
        most -= 1
    return os.fsdecode(encoded[:most])
