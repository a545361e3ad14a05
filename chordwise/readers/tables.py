"""Writes rows as a Markdown table, whose marks tell a model what stands under which heading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence


def markdown(rows: Iterable[Sequence[str]], spend: Callable[[int], None]) -> str:
    """Return the rows that hold something, the first as the heading; `spend` takes their lengths.

    Raises:
        ReadError: As `spend` decides.
    """
    lines: list[str] = []
    width = 0
    for row in rows:
        cells = [_cell(each) for each in row]
        if not any(cells):
            continue
        line = f"| {' | '.join(cells)} |"
        spend(len(line) + 1)
        if not lines:
            width = len(cells)
        lines.append(line)
    if lines:
        lines.insert(1, "|" + " --- |" * width)
    return "\n".join(lines)


def _cell(text: str) -> str:
    lines = (line.strip() for line in text.strip().splitlines())
    return "<br>".join(line for line in lines if line).replace("|", "\\|")
