"""Reading documents for a quote, and the words about it before a run with a budget begins."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from chordwise.cli.rendering import quotes
from chordwise.cli.rendering.screen import Screen
from chordwise.domain.money import dollars
from chordwise.pipeline.intake.found_files import FileSource
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.quoting import quote as quoting
from chordwise.pipeline.quoting.quote import Quote
from chordwise.pipeline.runtime.context import ReadingContext
from chordwise.readers.discovery import STDIN, FoundFile, discover
from chordwise.readers.reading import Columns, ReadDocument, Reader, UnreadDocument
from chordwise.settings import Settings


def read_all(
    settings: Settings, found: Iterable[FoundFile], columns: Columns
) -> Iterator[ReadDocument | UnreadDocument]:
    """Read file after file, as an analysis would."""
    with Reader(settings.readers) as reader:
        source = FileSource(reader, sys.stdin.buffer)
        for file in found:
            yield from source.read(file, columns)


def announce(
    context: ReadingContext,
    paths: Sequence[str],
    options: RunOptions,
    budget_usd: Decimal,
    screen: Screen,
) -> None:
    """Say what a run would cost before it begins, and whether its budget is likely to last.

    The numbers are those of `quote`, by analysis type and model, in the lane of the run. The files
    are read once more for it. Standard input cannot be; nothing is said then.

    Raises:
        UsageError: The paths match nothing any more.
        ConfigurationError: The model cannot be used as configured.
        ServiceUnavailableError: The database cannot be reached.
    """
    if STDIN in paths:
        screen.note("What comes from standard input cannot be quoted first.")
        return
    read = read_all(context.settings, discover(paths), options.columns)
    made = quoting.estimate(context, read, options)
    screen.tell_laid_out(*quotes.in_brief(made))
    for sentence in sentences(made, budget_usd):
        screen.tell(sentence)


def sentences(quote: Quote, budget_usd: Decimal) -> Iterator[str]:
    """Return what a quote says about a budget; a warning where it will probably not last."""
    expected, budget = quotes.amount(quote.total), dollars(budget_usd)
    yield f"Expected cost: {expected}, of a budget of {budget}."
    if quote.total is None or budget_usd >= quote.total.high:
        return
    likely = "is likely not to" if budget_usd < quote.total.typical else "may not"
    how_to_go_on = "`chordwise retry RUN --budget USD` goes on where it stopped"
    yield f"Warning: the budget {likely} last. The run pauses then; {how_to_go_on}."
