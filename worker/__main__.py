"""`python -m worker` starts a worker; `… health` checks whether one is alive here."""

from __future__ import annotations

import sys

from chordwise.lazy import load

if __name__ == "__main__":
    # structlog and httpx would import it for output that a worker does not write: 4 MB.
    sys.modules["rich"] = None  # type: ignore[assignment]
    sys.exit(load("worker.process").main())
