"""Names that no document has: hidden, temporary, or a program's own."""

from __future__ import annotations

_STARTS = (".", "~$", "~lock.")
_ENDS = (
    ".part",
    ".partial",
    ".filepart",
    ".crdownload",
    ".download",
    ".opdownload",
    ".tmp",
    ".temp",
    ".swp",
    "~",
    ".chordwise.toml",
)
_NAMES = (
    "thumbs.db",
    "desktop.ini",
    "icon\r",
    "__macosx",
    "lost+found",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "chordwise.toml",
)


def is_ignored(name: str) -> bool:
    """Tell whether a name inside a folder is hidden, temporary, or a program's own."""
    lowered = name.lower()
    return lowered.startswith(_STARTS) or lowered.endswith(_ENDS) or lowered in _NAMES
