"""What the caps of a run have come to, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from rich.text import Text

from chordwise.cli.rendering.words import counted, money
from chordwise.pipeline.runs.accounts import BudgetLine


def laid_out(found: Sequence[BudgetLine]) -> Iterator[Text]:
    """Return a line for each cap."""
    for line in found:
        kind, _, name = line.scope.partition(":")
        whose = "this run" if kind == "run" else f"all runs on {name} UTC"
        parts = [
            f"{_shown(line.spent_usd)} of {_shown(line.cap_usd)} spent by {whose}",
            *([f"{_shown(line.reserved_usd)} reserved for calls"] if line.reserved_usd else []),
            f"{_shown(line.left_usd)} left",
            *([_unpriced(line.unpriced_calls)] if line.unpriced_calls else []),
        ]
        yield Text(f"Budget   {' · '.join(parts)}")


def _unpriced(calls: int) -> str:
    return f"{counted(calls, 'call')} of unknown cost"


def _shown(usd: Decimal) -> str:
    return money(usd, unpriced=0, calls=0)
