"""Following a run to its end, and letting go of it on Ctrl-C without losing anything."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable

from chordwise.cli import access, run_report
from chordwise.cli.interruption import noted
from chordwise.cli.invocation import Invocation
from chordwise.cli.rendering import live
from chordwise.cli.rendering.live import Display
from chordwise.cli.run_report import suggest
from chordwise.embedded import stack
from chordwise.errors import ExitCode, ServiceUnavailableError
from chordwise.pipeline.runs import accounts, progress
from chordwise.pipeline.runs.progress import Pace, Progress
from chordwise.settings import Settings
from chordwise.storage.database import Database, connected


def follow(
    invocation: Invocation, settings: Settings, run_id: uuid.UUID, name: str, *, as_json: bool
) -> ExitCode:
    """Wait until a run is over and report on it; Ctrl-C only detaches.

    The settings hold the stack's addresses.

    Raises:
        ServiceUnavailableError: The database stays away.
    """
    screen = invocation.screen
    with access.database(settings) as database:
        try:
            with noted() as interruption, live.display(screen) as display:
                watch = Watch(settings, database, screen.tell, pause=interruption.wait)
                watch.until_over(run_id, display)
        except KeyboardInterrupt:
            return let_go(invocation, settings, name, was_interrupted=True)
        with database.read() as session:
            account = accounts.of_run(session, run_id)
            run_report.give(invocation, settings, session, account, as_json=as_json)
    return ExitCode.SUCCESS if account.is_complete else ExitCode.INCOMPLETE


def let_go(
    invocation: Invocation, settings: Settings, name: str, *, was_interrupted: bool
) -> ExitCode:
    """Say that the work goes on, and how to come back; return what the command exits with."""
    if was_interrupted:
        invocation.screen.tell("Detached: what was taken in goes on. Come back with:")
    else:
        invocation.screen.tell("The work goes on in the background. Wait for it with:")
    suggest(invocation, settings, "wait", name)
    return ExitCode.DETACHED if was_interrupted else ExitCode.SUCCESS


_SHORTEST_SECONDS = 0.25
# A large run is looked at less often, so that looking takes little of the database's time.
_LOOKING_SHARE = 20
_KEEP_ALIVE_SECONDS = 30.0
_STILL_SECONDS = 60.0
_OUTAGE_SECONDS = 60.0
_WITHIN_A_DAY = (
    "Batches are answered within a day: `chordwise runs RUN` says how they stand. "
    "Ctrl-C loses nothing."
)


class Watch:
    """One wait for one run.

    `warn` hears sentences about what seems to be wrong. `pause` waits so many seconds, and returns
    whether to detach.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        warn: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], bool | None] | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._warn = warn
        self._clock = clock
        self._pause = pause or threading.Event().wait
        self._pace = Pace()
        self._touched_at = float("-inf")
        self._moved_at = self._changed_at = clock()
        self._reached_at = clock()
        self._last: Progress | None = None
        self._warned = ""

    def until_over(self, run_id: uuid.UUID, display: Display) -> Progress:
        """Show how a run comes on until it is over or needs a person.

        Raises:
            KeyboardInterrupt: The pause was interrupted.
            ServiceUnavailableError: The database stays away.
        """
        while True:
            began = self._clock()
            found = self._look(run_id)
            if found is not None:
                self._note(found)
                display.progress(found, self._pace)
                if found.is_over:
                    return found
            self._keep_alive()
            seconds = max(_SHORTEST_SECONDS, (self._clock() - began) * _LOOKING_SHARE)
            if self._pause(seconds):
                raise KeyboardInterrupt

    def _look(self, run_id: uuid.UUID) -> Progress | None:
        """Return the progress, or nothing while the database is away for a moment."""
        try:
            with self._database.read() as session:
                found = progress.read(session, run_id)
        except ServiceUnavailableError:
            if self._clock() - self._reached_at > _OUTAGE_SECONDS:
                raise
            return None
        self._reached_at = self._clock()
        return found

    def _note(self, found: Progress) -> None:
        now = self._clock()
        self._pace.note(now, found)
        if found != self._last:
            self._last, self._moved_at, self._changed_at = found, now, now
        elif now - self._moved_at > _STILL_SECONDS:
            self._moved_at = now
            self._warn_of(self.diagnosis(found), repeats=not found.batches)

    def _warn_of(self, sentence: str, *, repeats: bool) -> None:
        """Say what seems to be wrong; what is as it should be for hours is said once."""
        if repeats or sentence != self._warned:
            self._warn(sentence)
        self._warned = sentence

    def diagnosis(self, found: Progress) -> str:
        """Say why nothing may have moved for a while."""
        if found.batches:
            return _WITHIN_A_DAY
        still = f"Nothing has moved for {_STILL_SECONDS:.0f} seconds"
        if found.jobs.waiting and not found.jobs.unsplit:
            return f"{still}: the provider lets {found.jobs.waiting} wait. Ctrl-C loses nothing."
        try:
            with self._database.read() as session:
                worker = connected(session).get("worker")
        except ServiceUnavailableError:
            return f"{still}, and the database is away. Ctrl-C loses nothing."
        if worker is None:
            return (
                "No worker is connected to the database, and nothing has moved for "
                f"{self._clock() - self._changed_at:.0f} seconds. "
                "Start one with `chordwise up`, or run `chordwise doctor`."
            )
        return f"{still}; the database sees {worker}. A model call may take long."

    def _keep_alive(self) -> None:
        if self._clock() - self._touched_at > _KEEP_ALIVE_SECONDS:
            self._touched_at = self._clock()
            stack.touch_last_used(self._settings.home)
