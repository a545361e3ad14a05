"""What a command shows of a run that is over."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import platformdirs
from sqlalchemy.orm import Session

from chordwise.cli.invocation import Invocation
from chordwise.cli.rendering import accounts as rendered_accounts
from chordwise.cli.rendering import live
from chordwise.cli.rendering import results as rendered_results
from chordwise.cli.rendering.plain_text import counted
from chordwise.domain.states import JobStatus
from chordwise.pipeline.runs import accounts, progress, stored_results
from chordwise.pipeline.runs.accounts import Account, caps_of_run
from chordwise.pipeline.runs.stored_results import Wanted
from chordwise.settings import Settings
from chordwise.storage.runs import Run

MAX_FAILURES = 10_000
MAX_RESULTS = 100
EVERY = 1_000_000_000


def give(
    invocation: Invocation, settings: Settings, session: Session, account: Account, *, as_json: bool
) -> None:
    """Show results, account and failures of a run, for people or as JSON."""
    usage = progress.read(session, account.run_id)
    caps = caps_of_run(session, account.run_id)
    wanted = Wanted(run_id=account.run_id)
    most = None if as_json else MAX_RESULTS
    found = stored_results.read(session, wanted, most)
    failed = accounts.failures(session, account.run, EVERY if as_json else MAX_FAILURES)
    screen = invocation.screen
    if as_json:
        screen.write_json(
            run=account, usage=usage.calls, budgets=caps, results=found, failures=failed
        )
        return
    screen.show(*rendered_results.laid_out(found))
    if len(found) == most:
        words = stored_results.count_in_words(session, wanted)
        screen.note(f"The first {len(found)} of {words} results are shown.")
    screen.show(*rendered_accounts.failures(failed), *rendered_accounts.laid_out(account))
    screen.show(*rendered_accounts.budget_lines(caps))
    unsure = stored_results.count(session, replace(wanted, needs_review=True))
    review = f" {counted(unsure, 'answer')} should be looked at (needs review)." if unsure else ""
    screen.tell(f"{rendered_accounts.in_words(account)}{review} {live.spent(usage)}.")
    _say_how_to_go_on(invocation, settings, account)
    saved_as = session.get_one(Run, account.run_id).saved_as or ""
    _say_where_to_look(invocation, settings, account.run, saved_as, has_results=bool(found))


def _say_how_to_go_on(invocation: Invocation, settings: Settings, account: Account) -> None:
    tell = invocation.screen.tell
    ended_badly = account.states[JobStatus.SUCCEEDED] < sum(account.states.values())
    if account.states[JobStatus.PAUSED]:
        tell("Paused: the run does not continue on its own. Resolve the error above, then:")
    elif ended_badly:
        tell("Take up again what has not succeeded with:")
    if ended_badly:
        suggest(invocation, settings, "retry", account.run)
    if account.is_interrupted:
        tell("The intake was interrupted. Take in the rest with:")
        suggest(invocation, settings, "resume", account.run)


def _say_where_to_look(
    invocation: Invocation, settings: Settings, run: str, saved_as: str, *, has_results: bool
) -> None:
    invocation.screen.tell("Look further with:")
    suggest(invocation, settings, "runs", run)
    if has_results:
        suggest(invocation, settings, "results", "--run", run)
        if saved_as:
            suggest(invocation, settings, "tables", saved_as)
            suggest(invocation, settings, "sql", f"TABLE answers.{saved_as}")
            return
        name = run.replace("'", "''")
        quotes = "SELECT source, item, value, quote FROM fact_quotes WHERE grounded"
        suggest(invocation, settings, "sql", f"{quotes} AND run = '{name}'")


def suggest(invocation: Invocation, settings: Settings, *words: str) -> None:
    """Show a command line to type next, for the shell, that works from the current folder.

    The home is named unless it is the default one: a variable may not be set the next time.
    """
    parts = [*_program(), words[0]]
    if invocation.config is not None:
        parts += ["--config", str(invocation.config)]
    if settings.home.expanduser().resolve() != Path(platformdirs.user_data_dir("chordwise")):
        parts += ["--home", _near(settings.home)]
    invocation.screen.suggest(" ".join(map(_quoted, [*parts, *words[1:]])))


def _program() -> list[str]:
    called = Path(sys.argv[0])
    if called.name != "chordwise":
        return [_near(Path(sys.executable)), "-m", "chordwise"]
    found = shutil.which("chordwise")
    is_on_path = found is not None and Path(found).resolve() == called.resolve()
    return ["chordwise"] if is_on_path else [_near(called)]


def _near(path: Path) -> str:
    """Return a path from the current folder where it lies below that."""
    absolute = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolve() leaves .venv
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def _quoted(part: str) -> str:
    """Quote a word for the shell, with the double quotes that read best around SQL."""
    if "'" in part and not any(character in part for character in '"$`\\!'):
        return f'"{part}"'
    return shlex.quote(part)
