"""Watches the inboxes in a thread of its own, so that dispatch and recovery never wait for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import structlog
import watchfiles

from chordwise.domain.ignored_names import is_ignored
from chordwise.domain.inbox_names import SIDE_CAR
from chordwise.errors import ChordwiseError, ServiceUnavailableError
from chordwise.pipeline.context import Context
from chordwise.pipeline.inbox.store import Store
from chordwise.pipeline.inbox.watch import Watch

log = structlog.get_logger(__name__)

_TICK_SECONDS = 0.1
_PAUSE_SECONDS = 1.0
_EVENTS_MILLISECONDS = 500
_LEAVING_SECONDS = 30.0


@contextmanager
def watched(context: Context, stop: Event) -> Iterator[None]:
    """Watch the inboxes of the settings, if there are any, until `stop` is set.

    Raises:
        ConfigurationError: The inboxes overlap, or a profile's folder lies outside.
    """
    if not context.settings.inbox.is_watched:
        yield
        return
    watcher = InboxWatcher(context, stop)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join(_LEAVING_SECONDS)


class InboxWatcher(Thread):
    """Takes turns: of all schedulers of one home one watches, and the next one when it has gone."""

    def __init__(self, context: Context, stop: Event) -> None:
        super().__init__(name="inbox", daemon=True)
        self._context = context
        self._stop_event = stop
        self._store = Store(context.settings.home)
        self._watch = Watch(
            context,
            self._store,
            monotonic=time.monotonic,
            now=lambda: datetime.now(UTC),  # noqa: TID251 - the clock
        )

    def run(self) -> None:
        """Wait for the turn, then watch until told to stop."""
        while not self._stop_event.is_set():
            if self._has_turn():
                self._watch_on()
            self._stop_event.wait(_PAUSE_SECONDS)

    def _has_turn(self) -> bool:
        try:
            return self._store.acquire()
        except (ChordwiseError, OSError) as error:
            log.warning("inbox.store", reason=str(error))
            return False

    def _watch_on(self) -> None:
        self._watch.make_folders()  # for what is not there tells nothing
        log.info("inbox.watching", folders=[str(each) for each in self._watch.folders])
        if not self._context.settings.inbox.polling:
            for folder in self._watch.folders:
                Thread(target=self._listen, args=(folder,), name="events", daemon=True).start()
        while not self._stop_event.is_set():
            self._tick()
        self._leave()

    def _tick(self) -> None:
        try:
            self._watch.tick()
            self._stop_event.wait(_TICK_SECONDS)
        except ServiceUnavailableError as error:
            log.warning("inbox.waiting", reason=error.what)
            self._stop_event.wait(_PAUSE_SECONDS)
        except Exception:  # a defect must not end the watch
            log.exception("inbox.defect")
            self._stop_event.wait(_PAUSE_SECONDS)

    def _leave(self) -> None:
        try:
            self._watch.close()
        except ServiceUnavailableError as error:
            log.warning("inbox.waiting", reason=error.what)
        self._store.release()

    def _listen(self, folder: Path) -> None:
        """Hand on what the system tells of a folder; where it tells nothing, scans have to do."""
        while not self._stop_event.is_set():
            try:
                self._hand_on(folder)
            except OSError as error:
                log.warning("inbox.no_events", folder=str(folder), reason=str(error))
                self._stop_event.wait(_LEAVING_SECONDS)

    def _hand_on(self, folder: Path) -> None:
        """Tell the watch of every event, and at first to look for what came before them."""
        is_listening = False
        for changes in watchfiles.watch(
            folder,
            watch_filter=lambda _change, path: _matters(path),
            stop_event=self._stop_event,
            rust_timeout=_EVENTS_MILLISECONDS,
            step=_EVENTS_MILLISECONDS // 10,
            debounce=_EVENTS_MILLISECONDS,
            recursive=True,
            raise_interrupt=False,
            yield_on_timeout=True,
        ):
            if not is_listening:
                self._watch.disturb([folder])
                is_listening = True
            self._watch.disturb(Path(path) for _, path in changes)


def _matters(path: str) -> bool:
    name = Path(path).name
    return name.endswith(SIDE_CAR) or not is_ignored(name)
