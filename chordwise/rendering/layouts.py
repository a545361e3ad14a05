"""Layouts for terminals of every width: text is folded, not cut."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate, takewhile

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from chordwise.rendering.plain_text import one_line

_ENDLESS = 100_000


class FirstThatFits:
    """Shows the first of several layouts that fits the width, else the last."""

    def __init__(self, *layouts: RenderableType) -> None:
        self._layouts = layouts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Choose a layout for the available width."""
        *preferred, last = self._layouts
        endless = options.update(width=_ENDLESS)
        for layout in preferred:
            if Measurement.get(console, endless, layout).minimum <= options.max_width:
                yield layout
                return
        yield last


_CELL_WIDTH, _WIDEST_CELL = 16, 40


class Lines:
    """Shows a line for each row, as wide as the terminal, with the columns that fit.

    Cells are cut, those of the first column in the middle. The columns that do not fit are named
    in their order, after `mark` if one of their cells begins with it.
    """

    def __init__(self, names: Sequence[str], rows: Sequence[Sequence[Text]], mark: str) -> None:
        self._names = names
        self._rows = rows
        self._mark = mark

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Choose the columns that fit with narrow cells, and widen these from left to right."""
        columns = [
            [name, *(row[index].plain for row in self._rows)]
            for index, name in enumerate(self._names)
        ]
        marked = [any(cell.startswith(self._mark) for cell in column) for column in columns]
        widest = [min(max(map(cell_len, column)), _WIDEST_CELL) for column in columns]
        widths = [min(width, _CELL_WIDTH) for width in widest]
        widths[0] = min(widest[0], max(_CELL_WIDTH, options.max_width * 3 // 10))
        ends = [end - 2 for end in accumulate(width + 2 for width in widths)]
        count = max(1, sum(end <= options.max_width for end in ends))
        shown, hidden = range(count), range(count, len(columns))
        room = options.max_width - ends[count - 1] - 2
        grid = empty()
        for index in shown:
            more = max(0, min(widest[index] - widths[index], room))
            room -= more
            widths[index] += more
            name = Text(self._names[index])
            grid.add_column(name, width=widths[index], no_wrap=True, overflow="ellipsis")
        for row in self._rows:
            document = Text(_shortened(row[0].plain, widths[0]))
            grid.add_row(document, *(row[index] for index in shown[1:]))
        yield grid
        if hidden:
            names = (f"{self._mark} " * marked[index] + self._names[index] for index in hidden)
            yield Text(f"Not shown: {', '.join(names)}", style="dim")


def table(
    names: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    prose_width: int = _ENDLESS,
    right: Collection[str] = (),
) -> Table:
    """Return a table that never breaks words; prose is wrapped at `prose_width` or more."""
    grid = empty()
    for index, name in enumerate(names):
        lines = [line for row in rows for line in _text(row[index]).split(allow_blank=True)]
        widest = max(line.cell_len for line in (Text(name), *lines))
        is_broken = widest > prose_width and any(" " in line.plain for line in lines)
        grid.add_column(
            Text(name),
            justify="right" if name in right else "left",
            min_width=min(widest, prose_width),
            no_wrap=not is_broken,
            overflow="fold",
        )
    return _filled(grid, rows)


def folded(
    names: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    whole: Collection[str] = (),
    right: Collection[str] = (),
    header_style: str = "bold",
    indent: int = 0,
) -> Table:
    """Return a table that folds long cells, except in the columns of `whole`.

    If even those do not fit, they are cut and end with an ellipsis.
    """
    grid = empty(header_style, indent)
    for name in names:
        grid.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=name in whole,
            overflow="ellipsis" if name in whole else "fold",
        )
    return _filled(grid, rows)


def numbers(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table whose first column names what the others measure."""
    return folded(names, rows, right=names[1:], header_style="dim")


def empty(header_style: str = "bold", indent: int = 0) -> Table:
    """Return a table without borders and columns."""
    return Table(box=None, padding=(0, 2, 0, indent), header_style=header_style)


def _filled(grid: Table, rows: Iterable[Sequence[str | Text]]) -> Table:
    for row in rows:
        grid.add_row(*map(_text, row))
    return grid


def _text(cell: str | Text) -> Text:
    return Text(cell) if isinstance(cell, str) else cell


def records(names: Sequence[str], rows: Sequence[Sequence[Text]]) -> RenderableType:
    """Return the rows as records, with a line for every column."""
    parts: list[RenderableType] = []
    for number, row in enumerate(rows, start=1):
        lines = Table.grid(padding=(0, 1))
        for style in ("bold", "dim", ""):
            lines.add_column(style=style, overflow="fold")
        for name, cell in zip(names, row, strict=True):
            lines.add_row(Text(name), "|", cell)
        parts += [Rule(f"Row {number}", align="left", characters="─", style="dim"), lines]
    return Group(*parts)


NAME_WIDTH = 48


def shortened(sources: Sequence[str], room: int = NAME_WIDTH) -> list[Text]:
    """Return names cut in the middle; if one exceeds `room`, all lose their common folder."""
    names = [one_line(source) for source in sources]
    folders = [name.split("/")[:-1] for name in names]
    common = takewhile(lambda steps: len(set(steps)) == 1, zip(*folders, strict=False))
    folder = "/".join(steps[0] for steps in common)
    if folder and len(set(names)) > 1 and max(map(len, names)) > room:
        names = [f"…/{name.removeprefix(f'{folder}/')}" for name in names]
    return [Text(_shortened(name)) for name in names]


def _shortened(name: str, width: int = NAME_WIDTH) -> str:
    file, half = name.rpartition("/")[2], width // 2
    if len(name) <= width:
        return name
    if len(file) < width:
        return f"…{name[1 - width :]}"
    return f"{file[:half]}…{file[1 - half :]}"
