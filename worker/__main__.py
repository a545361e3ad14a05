"""`python -m worker` starts a worker; `… health` checks whether one is alive here."""

from __future__ import annotations

import sys

from chordwise.lazy import load

if __name__ == "__main__":
    sys.exit(load("worker.process").main())
