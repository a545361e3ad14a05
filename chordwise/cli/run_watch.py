"""Following a run to its end and reporting it; Ctrl-C detaches."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from signal import Signals
from threading import Event

from sqlalchemy.orm import Session

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.domain.number_formats import counted
from chordwise.domain.states import MISSING_FIELDS, MISSING_ROWS, JobStatus
from chordwise.embedded import processes
from chordwise.errors import ExitCode
from chordwise.relations import accounts, progress
from chordwise.relations import results as stored_results
from chordwise.relations.accounts import BUDGETS, Account
from chordwise.relations.relation import Row
from chordwise.relations.results import ResultSelection
from chordwise.rendering import accounts as rendered_accounts
from chordwise.rendering import live
from chordwise.rendering import results as rendered_results
from chordwise.rendering.accounts import MAX_FAILURES, UNLIMITED
from chordwise.rendering.run_waits import RunWatch
from chordwise.settings import Settings
from chordwise.settings.locations import default_home
from chordwise.storage.database import Database, driver
from chordwise.storage.runs import Run


def follow(
    invocation: Invocation,
    settings: Settings,
    run_id: uuid.UUID,
    name: str,
    *,
    as_json: bool,
    is_long: bool = False,
) -> ExitCode:
    """Wait for a run to finish and report it; Ctrl-C only detaches.

    The settings contain the addresses of the services.

    Raises:
        ServiceUnavailableError: The database stays unavailable.
    """
    with access.database(settings) as database:
        try:
            wait_with_progress(invocation, settings, database, run_id)
        except KeyboardInterrupt:
            return report_detached(invocation, settings, name, was_interrupted=True)
        with database.read() as session:
            account = accounts.of_run(driver(session), run_id)
            report(invocation, settings, session, account, as_json=as_json, is_long=is_long)
    return ExitCode.SUCCESS if account.is_complete else ExitCode.INCOMPLETE


def wait_with_progress(
    invocation: Invocation, settings: Settings, database: Database, run_id: uuid.UUID
) -> None:
    """Show the progress of a run until it finishes or needs intervention.

    Raises:
        KeyboardInterrupt: Ctrl-C; the run continues.
        ServiceUnavailableError: The database stays unavailable.
    """
    screen = invocation.screen
    with interruptible() as interruption, live.display(screen) as display:
        RunWatch(settings, database, screen.info, pause=interruption.wait).wait_until_over(
            run_id, display
        )


def report_detached(
    invocation: Invocation, settings: Settings, name: str, *, was_interrupted: bool
) -> ExitCode:
    """Report that the run continues and how to wait for it; return the exit code."""
    detached = "Detached. " if was_interrupted else ""
    invocation.screen.info(f"{detached}The run continues in the background. Wait for it with:")
    suggest(invocation, settings, "wait", name)
    return ExitCode.DETACHED if was_interrupted else ExitCode.SUCCESS


def report(
    invocation: Invocation,
    settings: Settings,
    session: Session,
    account: Account,
    *,
    as_json: bool,
    is_long: bool,
) -> None:
    """Show results, account and failures of a run, for people or as JSON."""
    usage = progress.read(driver(session), account.run_id)
    caps = BUDGETS.read(driver(session), {"run_id": account.run_id})
    selection = ResultSelection(run_id=account.run_id)
    failed = accounts.failures(driver(session), account.run, UNLIMITED if as_json else MAX_FAILURES)
    screen = invocation.screen
    if as_json:
        results = stored_results.read(driver(session), selection)
        screen.write_json(
            run=account, usage=usage.calls, budgets=caps, results=results, failures=failed
        )
        return
    count = rendered_results.show(screen, driver(session), selection, is_long=is_long)
    screen.show(*rendered_accounts.failures(failed), *rendered_accounts.render(account))
    screen.show(*rendered_accounts.budget_lines(caps))
    unsure = stored_results.count(driver(session), replace(selection, needs_review=True))
    review = f" {counted(unsure, 'answer')} marked for review." if unsure else ""
    screen.info(f"{rendered_accounts.in_words(account)}{review} {live.spent(usage)}.")
    _suggest_next_steps(invocation, settings, account, failed)
    saved_as = session.get_one(Run, account.run_id).saved_as or ""
    _suggest_queries(invocation, settings, account.run, saved_as, has_results=bool(count))


def _suggest_next_steps(
    invocation: Invocation, settings: Settings, account: Account, failed: Sequence[Row]
) -> None:
    """Suggest `continue`, except for answers that lack rows or fields: it keeps their chunks."""
    info = invocation.screen.info
    codes = [row["error_code"] for row in failed if row["what"] == "job"]
    lacking = codes.count(MISSING_ROWS) + codes.count(MISSING_FIELDS)
    if account.total > account.states[JobStatus.SUCCEEDED] + lacking:
        paused = "The run is paused. Resolve the error above, then continue it with:"
        info(
            paused if account.states[JobStatus.PAUSED] else "Retry the unsuccessful analyses with:"
        )
        suggest(invocation, settings, "continue", account.run)
    if lacking:
        info("Ask again where rows or fields are missing; add --model NAME to ask another model:")
        suggest(invocation, settings, "refresh", account.run, "--failed")
    if account.is_interrupted:
        info("The intake was interrupted. Continue it with:")
        suggest(invocation, settings, "continue", account.run)


def _suggest_queries(
    invocation: Invocation, settings: Settings, run: str, saved_as: str, *, has_results: bool
) -> None:
    invocation.screen.info("For details, run:")
    suggest(invocation, settings, "runs", run)
    if has_results:
        suggest(invocation, settings, "results", "--run", run)
        if saved_as:
            suggest(invocation, settings, "tables", saved_as)
            suggest(invocation, settings, "sql", f"TABLE answers.{saved_as}")
            file = ("--output", f"{saved_as}.xlsx")
            suggest(invocation, settings, "export", f"answers.{saved_as}", *file)
            return
        name = run.replace("'", "''")
        quotes = "SELECT source, item, value, quote FROM fact_quotes WHERE grounded"
        suggest(invocation, settings, "sql", f"{quotes} AND run = '{name}'")


def suggest(invocation: Invocation, settings: Settings, *words: str) -> None:
    """Show a command line for the shell that works from the current folder.

    It names a home other than the default, as CHORDWISE_HOME may not be set the next time.
    """
    script = Path(sys.argv[0])
    parts = [_relative(Path(sys.executable)), "-m", "chordwise", words[0]]
    if script.name == "chordwise":
        path = shutil.which("chordwise")
        is_on_path = path is not None and Path(path).resolve() == script.resolve()
        parts = ["chordwise" if is_on_path else _relative(script), words[0]]
    if invocation.config is not None:
        parts += ["--config", str(invocation.config)]
    if settings.home.expanduser().resolve() != default_home():
        parts += ["--home", _relative(settings.home)]
    invocation.screen.suggest(" ".join(map(_quoted, [*parts, *words[1:]])))


def _relative(path: Path) -> str:
    """Return a path relative to the current folder if it is below that folder."""
    absolute = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolve() leaves .venv
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def _quoted(part: str) -> str:
    """Quote a word for the shell, preferring double quotes around SQL."""
    if "'" in part and not any(character in part for character in '"$`\\!'):
        return f'"{part}"'
    return shlex.quote(part)


@contextmanager
def interruptible(on_first: Callable[[], None] | None = None) -> Iterator[Event]:
    """Let Ctrl-C interrupt and set the event; the first one only calls `on_first`, if given.

    Python drops an exception that is raised in a finalizer, so a loop must check the event.
    """
    pressed = Event()

    def press(*_: object) -> None:
        is_first = not pressed.is_set()
        pressed.set()
        if on_first is None or not is_first:
            raise KeyboardInterrupt
        on_first()

    with processes.handle_signals((Signals.SIGINT,), press):
        yield pressed
