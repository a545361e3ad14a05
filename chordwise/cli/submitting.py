"""The work of `analyze` and `submit`: open a run, take everything in, and wait for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from chordwise.cli import asking, forecasting, interruption, opening
from chordwise.cli.asking import Request
from chordwise.cli.following import Following
from chordwise.cli.invocation import Invocation
from chordwise.cli.rendering import live
from chordwise.cli.rendering.documents import document
from chordwise.cli.rendering.live import Display
from chordwise.cli.rendering.screen import Screen
from chordwise.embedded.stack import Level
from chordwise.errors import ExitCode
from chordwise.pipeline import budgets, intake
from chordwise.pipeline.intake import FileSource
from chordwise.pipeline.submit import Submission, TakenIn, open_run
from chordwise.readers.discovery import FoundFile, discover
from chordwise.readers.reading import Reader
from chordwise.settings import Settings

_ASKED_ONCE = "Votes and critique are for language models; the built-in model is asked once."


class Submitting:
    """One call of `analyze` or `submit`."""

    def __init__(self, invocation: Invocation, request: Request, screen: Screen) -> None:
        self._invocation = invocation
        self._request = request
        self._screen = screen

    def submit(self, *, as_json: bool) -> ExitCode:
        """Take everything in and print the run's id.

        Raises:
            ChordwiseError: The options, the settings, or a service.
        """
        settings, submission, was_interrupted = self._take_in()
        if as_json:
            self._screen.write(document(run_id=submission.run_id, run=submission.name))
        else:
            self._screen.write(f"{submission.run_id}\n")
        following = Following(self._invocation, settings, self._screen)
        return following.say_how_to_come_back(submission.name, was_interrupted=was_interrupted)

    def analyze(self, *, as_json: bool) -> ExitCode:
        """Take everything in, wait for the answers, and show them.

        Raises:
            ChordwiseError: The options, the settings, or a service.
        """
        settings, submission, was_interrupted = self._take_in()
        following = Following(self._invocation, settings, self._screen)
        if was_interrupted:
            return following.say_how_to_come_back(submission.name, was_interrupted=True)
        return following.follow(submission.run_id, submission.name, as_json=as_json)

    def _take_in(self) -> tuple[Settings, Submission, bool]:
        """Return the settings with the stack's addresses, the closed run, and whether by Ctrl-C."""
        settings = self._invocation.settings()
        options = asking.run_options(self._request, settings)
        found = discover(self._request.paths)
        settings = opening.with_model(self._invocation, settings, options.model)
        # Before anything is started.
        budgets.cap_for(settings, options.model, options.budget_usd)
        opening.require_own_database(settings)
        reached = opening.reach(self._invocation, settings, Level.ALL, self._screen.note)
        with opening.working_context(reached) as context:
            if options.budget_usd is not None:
                forecasting.announce(
                    context, self._request.paths, options, options.budget_usd, self._screen
                )
            submission = open_run(context, options, datetime.now(UTC))  # noqa: TID251 - the clock
            self._screen.note(f"Run {submission.name} ({submission.run_id})")
            if submission.lane is not options.lane:
                self._screen.tell(f"{options.model} has no Batch API: the run is asked online.")
            if submission.asks_once(options):
                self._screen.tell(_ASKED_ONCE)
            was_interrupted = self._read_all(reached, submission, found)
        return reached, submission, was_interrupted

    def _read_all(
        self, settings: Settings, submission: Submission, found: Iterator[FoundFile]
    ) -> bool:
        """Take in what was found; return whether Ctrl-C stopped it."""
        with (
            Reader(settings.readers) as reader,
            live.display(self._screen) as display,
            interruption.deferred(self._say_stopping) as is_stopped,
        ):
            source = FileSource(reader, sys.stdin.buffer)
            intake.take_in(
                submission,
                self._announced(found),
                source,
                on_taken=_Counting(display),
                is_stopped=is_stopped,
            )
        return is_stopped()

    def _say_stopping(self) -> None:
        self._screen.tell("Stopping after the document at hand; Ctrl-C again stops at once.")

    def _announced(self, found: Iterator[FoundFile]) -> Iterator[FoundFile]:
        """Say what is waited for where a person has to type it."""
        for file in found:
            if file.path is None and sys.stdin.isatty():
                self._screen.tell("Reading from the keyboard; Ctrl-D ends it.")
            yield file


class _Counting:
    """Counts what was taken in for the display."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._count = 0

    def __call__(self, file: FoundFile, _taken: TakenIn) -> None:
        """Count one more."""
        self._count += 1
        self._display.taking_in(self._count, file.source)
