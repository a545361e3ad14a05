"""Strategies for schedules of faults: kinds, times and durations."""

from __future__ import annotations

from hypothesis import strategies
from hypothesis.strategies import SearchStrategy

from tests.faults.monkey import Fault, Kind

MAX_FAULTS = 4
# Long enough to be detected, and short enough for many schedules.
_SECONDS = (0.5, 1.0, 3.0)
_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)


def faults(kinds: tuple[Kind, ...]) -> SearchStrategy[Fault]:
    return strategies.builds(
        Fault,
        kind=strategies.sampled_from(kinds),
        share=strategies.sampled_from(_SHARES),
        seconds=strategies.sampled_from(_SECONDS),
    )


def schedules(kinds: tuple[Kind, ...]) -> SearchStrategy[list[Fault]]:
    """Return one to four faults in the order in which they occur."""
    return strategies.lists(faults(kinds), min_size=1, max_size=MAX_FAULTS).map(
        lambda drawn: sorted(drawn, key=lambda fault: fault.share)
    )
