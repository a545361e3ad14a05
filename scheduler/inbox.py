"""Watches the inboxes, in the scheduler's process `inbox`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import structlog
import watchfiles

from chordwise.domain.inbox import SIDE_CAR
from chordwise.domain.visible_text import printable
from chordwise.errors import ServiceUnavailableError
from chordwise.pipeline.inbox.watch import InboxWatch
from chordwise.pipeline.runtime.context import Context
from chordwise.readers.discovery import is_ignored
from chordwise.remote import RemotePath
from chordwise.telemetry import liveness
from chordwise.telemetry.liveness import State

log = structlog.get_logger(__name__)

PROCESS = "inbox"
"""The name of this process in its heartbeat."""
_TICK_SECONDS = 0.1
_PAUSE_SECONDS = 1.0
_EVENTS_MILLISECONDS = 500
_RETRY_SECONDS = 30.0
_MAX_PAUSE_SECONDS = 2.0


def watch(context: Context, stop: Event) -> None:
    """Watch the inboxes of the settings until `stop` is set.

    Raises:
        ConfigurationError: The inboxes overlap, or a profile's folder is outside of them.
    """
    InboxWatcher(context, stop).run()


class InboxWatcher:
    """Watches the inboxes, possibly beside other schedulers."""

    def __init__(self, context: Context, stop: Event) -> None:
        self._context = context
        self._stop_event = stop
        self._watch = InboxWatch(
            context,
            monotonic=time.monotonic,
            now=lambda: datetime.now(UTC),  # noqa: TID251 - the clock
        )

    def run(self) -> None:
        """Watch until `stop` is set."""
        log.info("inbox.watching", folders=[str(folder) for folder in self._watch.folders])
        if not self._context.settings.inbox.polling:
            for folder in self._watch.folders:
                if isinstance(folder, RemotePath):
                    continue  # it sends no events, so that the watch polls
                Thread(target=self._listen, args=(folder,), name="events", daemon=True).start()
        Thread(target=self._show, name="show", daemon=True).start()
        while not self._stop_event.is_set():
            self._tick()
        try:
            self._watch.close()
        except ServiceUnavailableError as error:
            log.warning("inbox.waiting", reason=error.what)
        liveness.forget(self._context.settings.home, PROCESS)

    def _show(self) -> None:
        """Publish whether files are taken, even while the watch waits for one of them."""
        while not self._stop_event.wait(liveness.INTERVAL_SECONDS):
            state = State.OVERDUE if self._watch.is_overdue() else State.WORKING
            liveness.write_heartbeat(self._context.settings.home, PROCESS, state)

    def _tick(self) -> None:
        try:
            is_behind = self._watch.tick()
            self._stop_event.wait(0 if is_behind else _TICK_SECONDS)
        except ServiceUnavailableError as error:
            log.warning("inbox.waiting", reason=error.what)
            self._stop_event.wait(_PAUSE_SECONDS)
        except Exception:  # a defect must not end the watch
            log.exception("inbox.defect")
            self._stop_event.wait(_PAUSE_SECONDS)

    def _listen(self, folder: Path) -> None:
        """Forward the system's events of a folder; poll the folder while there are none."""
        last_reason = ""
        while not self._stop_event.is_set():
            try:
                self._forward_events(folder)
            except (OSError, RuntimeError) as error:
                reason = printable(str(error))
                if reason != last_reason:
                    last_reason = reason
                    log.warning("inbox.no_events", folder=printable(str(folder)), reason=reason)
                # The library raises RuntimeError for a name that is not UTF-8: listen again soon.
                self._poll_until_retry(folder, _RETRY_SECONDS * isinstance(error, OSError))

    def _poll_until_retry(self, folder: Path, seconds: float) -> None:
        pause = min(self._context.settings.inbox.polling_seconds, _MAX_PAUSE_SECONDS)
        for _ in range(1 + int(seconds / pause)):
            self._watch.record_changes([folder])
            if self._stop_event.wait(pause):
                return

    def _forward_events(self, folder: Path) -> None:
        """Forward every event to the watch, after a first scan for earlier files.

        Ends when another folder is in its place, because the system keeps reporting the old one.
        """
        identity = _identity(folder)
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
                self._watch.record_changes([folder])
                is_listening = True
            self._watch.record_changes(Path(path) for _, path in changes)
            if _identity(folder) != identity:
                return


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _matters(path: str) -> bool:
    name = Path(path).name
    return name.endswith(SIDE_CAR) or not is_ignored(name)
