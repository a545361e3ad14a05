"""`python -m worker` starts a worker; `python -m worker health` asks whether one is alive here."""

from __future__ import annotations

import sys

from chordwise.lazy import load

if __name__ == "__main__":
    sys.exit(load("worker.process").main())
