"""Commands 1: Analyze documents and show the answers."""

from __future__ import annotations

import itertools
import sys
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from chordwise.cli import access, run_watch
from chordwise.cli.commands import quote
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, IsLong, NoWait
from chordwise.cli.request import Arguments, Options, Paths
from chordwise.domain.number_formats import counted
from chordwise.domain.states import IntakeStatus
from chordwise.embedded.home import Level
from chordwise.errors import ChordwiseError, ExitCode, RunCancelledError
from chordwise.pipeline.intake import answer_tables, found_files
from chordwise.pipeline.intake.document_batches import Offered
from chordwise.pipeline.intake.run_options import RunOptions, requested, require_answerable
from chordwise.pipeline.intake.submit import Resume, Submission, open_or_resume
from chordwise.pipeline.quoting.quote import too_expensive
from chordwise.pipeline.runtime.context import Context
from chordwise.readers import discovery
from chordwise.readers.reader import Reader
from chordwise.relations import accounts
from chordwise.rendering import accounts as rendered_accounts
from chordwise.rendering import live
from chordwise.rendering.screen import confirmed
from chordwise.settings import Settings
from chordwise.storage.database import driver

_NO_VOTES = "Votes and critique have no effect on the built-in extractive model."
_STOPPING = "Stopping after the current document. Press Ctrl-C again to stop at once."


class RunIntake:
    """The intake of one run; the settings contain the addresses of the services."""

    def __init__(self, invocation: Invocation, settings: Settings) -> None:
        self.settings = settings
        self.screen = invocation.screen
        self._invocation = invocation

    def resume(self, context: Context) -> Resume:
        """Return the object that claims an interrupted run."""
        return Resume(context, self.screen.info, time.sleep)  # noqa: TID251 - waits in real time

    def take_in(self, context: Context, submission: Submission) -> accounts.Account:
        """Take in the remaining documents of a run, until Ctrl-C; return the account of the run.

        Raises:
            LeaseLostError: Another process has taken over the intake of this run.
            ServiceUnavailableError: The database cannot be reached.
        """
        with context.database.read() as session:
            account = accounts.of_run(driver(session), submission.run_id)
        counts = itertools.count(account.taken + 1)
        try:
            with (
                suppress(KeyboardInterrupt),  # the second Ctrl-C; the first requests a stop
                Reader(self.settings.readers) as reader,
                live.display(self.screen) as display,
                run_watch.interruptible(lambda: self.screen.info(_STOPPING)) as stopped,
            ):

                def count(offered: Offered) -> None:
                    display.show_intake(next(counts), account.intakes_found or 0, offered.name)

                source = found_files.FileSource(reader, sys.stdin.buffer)
                hooks = found_files.Hooks(on_taken=count, is_stopped=stopped.is_set)
                found_files.take_in(context, submission, source, hooks)
        except RunCancelledError:
            raise
        except ChordwiseError:
            self._suggest_continue(submission.name, "The intake was interrupted.")
            raise
        with context.database.read() as session:
            return accounts.of_run(driver(session), submission.run_id)

    def conclude(
        self, account: accounts.Account, *, waits: bool, as_json: bool, is_long: bool = False
    ) -> ExitCode:
        """Wait for a run and report it, or show how to wait for it later; return the exit code.

        Raises:
            ServiceUnavailableError: The database stays unavailable.
        """
        run, invocation, settings = account.run, self._invocation, self.settings
        is_interrupted = account.intake_status == IntakeStatus.INTERRUPTED
        if waits and not is_interrupted:
            return run_watch.follow(
                invocation, settings, account.run_id, run, as_json=as_json, is_long=is_long
            )
        if waits and as_json:
            self.screen.write_json(run=account)
        elif as_json:
            self.screen.write_json(
                run_id=account.run_id,
                run=run,
                intakes_found=account.intakes_found,
                intakes_taken=account.taken,
                intake_status=account.intake_status,
            )
        elif not waits:
            self.screen.write(f"{account.run_id}\n")
        code = run_watch.report_detached(invocation, settings, run, was_interrupted=is_interrupted)
        if is_interrupted:
            progress = rendered_accounts.intake_progress(account)
            self._suggest_continue(run, f"Intake interrupted: {progress}.")
        return code

    def _suggest_continue(self, name: str, sentence: str) -> None:
        self.screen.info(f"{sentence} Continue it with:")
        run_watch.suggest(self._invocation, self.settings, "continue", name)


def _open(
    context: Context, intake: RunIntake, options: RunOptions, files: discovery.FileList
) -> Submission:
    screen = intake.screen
    entries = found_files.Entries(context.settings, files)
    now = datetime.now(UTC)  # noqa: TID251 - the clock
    submission = open_or_resume(context, options, now, entries, intake.resume(context))
    screen.note(f"Run {submission.name} ({submission.run_id})")
    if submission.is_resumed:
        screen.info(f"Resuming the interrupted run {submission.name}.")
    if submission.lane is not options.lane:
        screen.info(f"{options.model} has no Batch API; the run uses the online lane.")
    if submission.has_dropped_options(options):
        screen.info(_NO_VOTES)
    if submission.example_count:
        limit = context.settings.prompts.learned_examples
        learned = counted(submission.example_count, "corrected or approved answer")
        screen.info(f"Each prompt contains up to {limit} of {learned} as examples.")
    is_typed = any(file.path is None for file in files) and sys.stdin.isatty()
    if is_typed and not submission.is_resumed:
        screen.info("Reading from the keyboard. Press Ctrl-D to end the input.")
    return submission


def analyze(  # noqa: PLR0913 - the options of a command
    invocation: Invocation,
    paths: Paths,
    arguments: Arguments,
    options: Options,
    *,
    no_wait: NoWait = False,
    is_long: IsLong = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Analyze documents and show the answers.

    chordwise analyze reports/ letter.pdf

    chordwise analyze "mail/*.eml" -t classification --labels invoice,complaint,other

    chordwise analyze contract.docx -t extraction --instructions "parties, term, penalty"

    cat notes.txt | chordwise analyze - -t summary -t sentiment --json

    RUN=$(chordwise analyze reports/ --no-wait) && chordwise wait $RUN

    Ctrl-C detaches: the run continues in the background, and `chordwise wait RUN` waits for it.
    Ctrl-C while files are read interrupts the intake: `chordwise continue RUN` reads the rest.
    """
    settings = invocation.settings()
    run_options = requested(settings, options, arguments)
    table = answer_tables.table_of(run_options)
    if table and table != run_options.save_as:
        invocation.screen.info(
            f"The answers of “{run_options.save_as}” are in the table answers.{table}."
        )
    present = paths
    if invocation.occurrence is not None:
        present = list(filter(discovery.matches_any_file, paths))
        if not present:
            invocation.screen.info("There are no files to analyze.")
            return ExitCode.SUCCESS
    files = discovery.FileList()
    with live.display(invocation.screen) as display:
        for file in discovery.discover(present):
            files.append(file)
            display.show_found(len(files))
    invocation.screen.note(f"Found {counted(len(files), 'file')}.")
    settings = access.with_model(invocation, settings, run_options.model)
    require_answerable(settings, run_options)  # before the stack is started
    access.require_external_database(settings)
    intake = RunIntake(invocation, access.reach(invocation, settings, Level.ALL))
    with access.working_context(invocation, intake.settings) as context:
        if run_options.budget_usd is not None:
            quote.announce(context, paths, run_options, run_options.budget_usd, invocation.screen)
        reason = "" if arguments.get("yes") else too_expensive(context, run_options, files)
        if reason and sys.stdin.isatty():
            invocation.screen.info(reason)
        hint = "Confirm with --yes, or limit the cost with --budget USD."
        if reason and not confirmed("Submit the run?", reason, hint):
            invocation.screen.info("Cancelled. Nothing was submitted.")
            return ExitCode.SUCCESS
        run_options = replace(run_options, paths=tuple(map(discovery.absolute, paths)))
        account = intake.take_in(context, _open(context, intake, run_options, files))
    return intake.conclude(account, waits=not no_wait, as_json=as_json, is_long=is_long)
