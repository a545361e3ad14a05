"""The work of `analyze`, `submit` and `resume`: list what is found, take it in, wait for it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from chordwise.cli import access, forecasting, interruption, request, suggestions
from chordwise.cli.invocation import Invocation
from chordwise.cli.rendering import accounts as rendered_accounts
from chordwise.cli.rendering import live
from chordwise.cli.rendering.live import Display
from chordwise.cli.rendering.plain_text import counted, document
from chordwise.cli.rendering.screen import Screen
from chordwise.cli.request import Request
from chordwise.cli.run_watch import Following
from chordwise.domain.states import IntakeStatus
from chordwise.domain.visible_text import printable
from chordwise.embedded.stack import Level
from chordwise.errors import ChordwiseError, ExitCode, RunCancelledError
from chordwise.pipeline.intake import found_files
from chordwise.pipeline.intake.batches import TakenIn
from chordwise.pipeline.intake.found_files import FileSource
from chordwise.pipeline.intake.run_options import RunOptions
from chordwise.pipeline.intake.submit import Resume, Submission, open_or_resume
from chordwise.pipeline.models import budgets
from chordwise.pipeline.runs import accounts
from chordwise.pipeline.runs.accounts import Account
from chordwise.pipeline.runtime.context import Context
from chordwise.readers.discovery import STDIN, FoundFile, discover
from chordwise.readers.reading import Reader
from chordwise.settings import Settings

_ASKED_ONCE = "Votes and critique are for language models; the built-in model is asked once."


class TakingIn:
    """Takes in for one run, and says how to go on; the settings hold the stack's addresses."""

    def __init__(self, invocation: Invocation, settings: Settings, screen: Screen) -> None:
        self._invocation = invocation
        self._settings = settings
        self._screen = screen
        self._following = Following(invocation, settings, screen)

    def resume(self, context: Context) -> Resume:
        """Return what claims an interrupted run."""
        return Resume(context, self._screen.tell, time.sleep)  # noqa: TID251 - the clock of people

    def take_in(self, context: Context, submission: Submission) -> Account:
        """Take in what is left on the list of a run until Ctrl-C; return its account then.

        Raises:
            LeaseLostError: Another process takes in for this run.
            ServiceUnavailableError: The database cannot be reached.
        """
        try:
            with suppress(KeyboardInterrupt):  # the second Ctrl-C; the first only asks to stop
                self._take_in(context, submission)
        except RunCancelledError:
            raise
        except ChordwiseError:
            self._say_how_to_resume(submission.name, "The intake was interrupted.")
            raise
        with context.database.read() as session:
            return accounts.of_run(session, submission.run_id)

    def conclude(self, account: Account, *, waits: bool, as_json: bool) -> ExitCode:
        """Wait for a run and report on it, or say how to come back; return the exit code.

        Raises:
            ServiceUnavailableError: The database stays away.
        """
        is_interrupted = account.intake_status != IntakeStatus.FINISHED
        if waits and not is_interrupted:
            return self._following.follow(account.run_id, account.run, as_json=as_json)
        if waits and as_json:
            self._screen.write(document(run=account))
        elif as_json:
            self._screen.write(
                document(
                    run_id=account.run_id,
                    run=account.run,
                    intakes_found=account.intakes_found,
                    intakes_taken=account.taken,
                    intake_status=account.intake_status,
                )
            )
        elif not waits:
            self._screen.write(f"{account.run_id}\n")
        code = self._following.say_how_to_come_back(account.run, was_interrupted=is_interrupted)
        if is_interrupted:
            self._say_how_to_resume(
                account.run, f"Interrupted: {rendered_accounts.taken_of_found(account)}."
            )
        return code

    def _take_in(self, context: Context, submission: Submission) -> None:
        with context.database.read() as session:
            account = accounts.of_run(session, submission.run_id)
        with (
            Reader(self._settings.readers) as reader,
            live.display(self._screen) as display,
            interruption.deferred(self._say_stopping) as is_stopped,
        ):
            found_files.take_in(
                context,
                submission,
                FileSource(reader, sys.stdin.buffer),
                on_taken=_Counting(display, account),
                is_stopped=is_stopped,
            )

    def _say_stopping(self) -> None:
        self._screen.tell("Stopping after the document at hand; Ctrl-C again stops at once.")

    def _say_how_to_resume(self, name: str, sentence: str) -> None:
        self._screen.tell(f"{sentence} Take in the rest with:")
        command = suggestions.command(self._invocation, self._settings, "resume", name)
        self._screen.suggest(command)


class Submitting:
    """One call of `analyze` or `submit`."""

    def __init__(self, invocation: Invocation, request: Request, screen: Screen) -> None:
        self._invocation = invocation
        self._request = request
        self._screen = screen

    def run(self, *, waits: bool, as_json: bool) -> ExitCode:
        """Take everything in; then wait for the answers and show them, or print the run's id.

        Raises:
            ChordwiseError: The options, the settings, or a service.
        """
        settings = self._invocation.settings()
        options = request.run_options(self._request, settings)
        found = self._found()
        settings = access.with_model(self._invocation, settings, options.model)
        # Before anything is started.
        budgets.cap_for(settings, options.model, options.budget_usd)
        access.require_own_database(settings)
        reached = access.reach(self._invocation, settings, Level.ALL, self._screen.note)
        taking_in = TakingIn(self._invocation, reached, self._screen)
        with access.working_context(reached) as context:
            if options.budget_usd is not None:
                forecasting.announce(
                    context, self._request.paths, options, options.budget_usd, self._screen
                )
            submission = self._open(context, options, found, taking_in)
            account = taking_in.take_in(context, submission)
        return taking_in.conclude(account, waits=waits, as_json=as_json)

    def _found(self) -> Sequence[FoundFile]:
        """Return everything that the arguments mean, before the first file is read."""
        with live.display(self._screen) as display:
            found = list(_counted(discover(self._request.paths), display))
        self._screen.note(f"Found {counted(len(found), 'file')}.")
        return found

    def _open(
        self,
        context: Context,
        options: RunOptions,
        found: Sequence[FoundFile],
        taking_in: TakingIn,
    ) -> Submission:
        """Store the run with the list of what was found, or go on with an interrupted one."""
        entries = [found_files.entry_of(file) for file in found]
        asked = replace(options, paths=tuple(map(_absolute, self._request.paths)))
        now = datetime.now(UTC)  # noqa: TID251 - the clock
        submission = open_or_resume(context, asked, now, entries, taking_in.resume(context))
        self._screen.note(f"Run {submission.name} ({submission.run_id})")
        if submission.is_resumed:
            self._screen.tell(f"The run {submission.name} was interrupted, and is resumed.")
        if submission.lane is not options.lane:
            self._screen.tell(f"{options.model} has no Batch API: the run is asked online.")
        if submission.asks_once(options):
            self._screen.tell(_ASKED_ONCE)
        is_typed = any(file.path is None for file in found) and sys.stdin.isatty()
        if is_typed and not submission.is_resumed:
            self._screen.tell("Standard input is read from the keyboard; Ctrl-D ends it.")
        return submission


def _counted(found: Iterator[FoundFile], display: Display) -> Iterator[FoundFile]:
    for count, file in enumerate(found, start=1):
        display.finding(count)
        yield file


def _absolute(path: str) -> str:
    """Return an argument as it means the same in every working folder."""
    return path if path == STDIN else printable(os.path.join(os.getcwd(), path))  # noqa: PTH109, PTH118 - a pattern is no path


class _Counting:
    """Counts what was taken in for the display."""

    def __init__(self, display: Display, account: Account) -> None:
        self._display = display
        self._count = account.taken
        self._found = account.intakes_found or 0

    def __call__(self, shown: str, _taken: TakenIn) -> None:
        """Count one more."""
        self._count += 1
        self._display.taking_in(self._count, self._found, shown)
