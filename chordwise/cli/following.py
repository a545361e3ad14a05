"""Following a run to its end, and letting go of it on Ctrl-C without losing anything."""

from __future__ import annotations

import uuid

from chordwise.cli import opening, suggestions
from chordwise.cli.interruption import noted
from chordwise.cli.invocation import Invocation
from chordwise.cli.rendering import live
from chordwise.cli.rendering.screen import Screen
from chordwise.cli.reporting import Report
from chordwise.cli.waiting import Watch
from chordwise.errors import ExitCode
from chordwise.settings import Settings


class Following:
    """What the commands that wait have in common; the settings hold the stack's addresses."""

    def __init__(self, invocation: Invocation, settings: Settings, screen: Screen) -> None:
        self._invocation = invocation
        self._settings = settings
        self._screen = screen

    def follow(self, run_id: uuid.UUID, name: str, *, as_json: bool) -> ExitCode:
        """Wait until a run is over and report on it; Ctrl-C only detaches.

        Raises:
            ServiceUnavailableError: The database stays away.
        """
        with opening.database(self._settings) as database:
            try:
                with noted() as interruption, live.display(self._screen) as display:
                    watch = Watch(
                        self._settings, database, self._screen.tell, pause=interruption.wait
                    )
                    watch.until_over(run_id, display)
            except KeyboardInterrupt:
                self.say_how_to_come_back(name, was_interrupted=True)
                return ExitCode.DETACHED
            report = Report(self._invocation, self._settings, database, self._screen)
            return report.give(run_id, as_json=as_json)

    def say_how_to_come_back(self, name: str, *, was_interrupted: bool) -> ExitCode:
        """Say that the work goes on; return what the command exits with."""
        if was_interrupted:
            self._screen.tell("Detached: what was taken in goes on. Come back with:")
        else:
            self._screen.tell("The work goes on in the background. Wait for it with:")
        self._screen.suggest(suggestions.command(self._invocation, self._settings, "wait", name))
        return ExitCode.DETACHED if was_interrupted else ExitCode.SUCCESS
