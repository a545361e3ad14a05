"""The names of documents for a column of a table: what tells them apart stays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from rich.text import Text

from chordwise.cli.rendering.plain_text import one_line

WIDTH = 48


def shortened(found: Sequence[str], room: int = WIDTH) -> list[Text]:
    """Return the names, cut at their front; beyond the room without the folder that all are in."""
    names = [one_line(source) for source in found]
    folder = _common_folder(names)
    if folder and max(map(len, names)) > room:
        names = [f"…/{name.removeprefix(folder)}" for name in names]
    return [Text(name if len(name) <= WIDTH else f"…{name[1 - WIDTH :]}") for name in names]


def _common_folder(names: Sequence[str]) -> str:
    """Return the folder of them all with its slash; nothing where there is one document only."""
    if len(set(names)) == 1:
        return ""
    folders = [name.split("/")[:-1] for name in names]
    common = takewhile(lambda steps: len(set(steps)) == 1, zip(*folders, strict=False))
    folder = "/".join(steps[0] for steps in common)
    return f"{folder}/" if folder else ""
