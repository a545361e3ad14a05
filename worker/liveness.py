"""The worker's sign of life, given by its event loop."""

from __future__ import annotations

from pathlib import Path

from celery import bootsteps

from chordwise.telemetry import liveness


class Liveness(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
    """Touches the file from the event loop itself, so that a hung loop looks dead."""

    requires = ("celery.worker.components:Timer",)
    home: Path

    def start(self, parent: bootsteps.StartStopStep) -> None:
        """Begin to touch the file."""
        self._show()
        parent.timer.call_repeatedly(liveness.INTERVAL_SECONDS, self._show)

    def _show(self) -> None:
        liveness.show(self.home, "worker")
