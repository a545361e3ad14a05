"""The thread that hands in and fetches batches, while this scheduler leads."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

import structlog

from chordwise.errors import ServiceUnavailableError

log = structlog.get_logger(__name__)

EVERY_SECONDS = 1.0
_LEAVING_SECONDS = 5.0


class Batching:
    """Does its work over and over in a thread of its own: the network must not hold up the chores.

    A step that is cut off at the end of the process is taken up again by whoever leads next.
    """

    def __init__(self, do: Callable[[], None], every_seconds: float = EVERY_SECONDS) -> None:
        self._do = do
        self._every_seconds = every_seconds
        self._leads = Event()
        self._stopped = Event()
        self._thread: Thread | None = None

    def lead(self, *, leads: bool) -> None:
        """Begin, go on, or rest until this process leads again."""
        if not leads:
            self._leads.clear()
            return
        self._leads.set()
        if self._thread is None:
            self._thread = Thread(target=self._run, name="batching", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Do nothing any more; wait a moment for a step that is being made."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(_LEAVING_SECONDS)

    def _run(self) -> None:
        while not self._stopped.wait(self._every_seconds):
            if not self._leads.is_set():
                continue
            try:
                self._do()
            except ServiceUnavailableError as error:
                log.warning("batching.put_off", reason=error.what)
            except Exception:  # one defect must not end the lane
                log.exception("batching.defect")
