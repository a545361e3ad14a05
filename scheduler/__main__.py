"""`python -m scheduler` dispatches and recovers; `… health` checks whether one is alive here."""

from __future__ import annotations

import sys

from chordwise.lazy import load

if __name__ == "__main__":
    sys.exit(load("scheduler.process").main())
