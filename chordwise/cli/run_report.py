"""What a command shows of a run that is over, and the exit code that says the same."""

from __future__ import annotations

import uuid

from sqlalchemy.orm import Session

from chordwise.cli import suggestions
from chordwise.cli.invocation import Invocation
from chordwise.cli.rendering import accounts as rendered_accounts
from chordwise.cli.rendering import live
from chordwise.cli.rendering import results as rendered_results
from chordwise.cli.rendering.plain_text import document
from chordwise.cli.rendering.screen import Screen
from chordwise.domain.states import JobStatus
from chordwise.errors import ExitCode
from chordwise.pipeline.runs import accounts, progress, stored_results
from chordwise.pipeline.runs.accounts import Account, caps_of_run
from chordwise.pipeline.runs.stored_results import Wanted
from chordwise.settings import Settings
from chordwise.storage.database import Database

MOST_FAILURES = 10_000
MOST_RESULTS = 100
EVERY = 1_000_000_000


class Report:
    """The report on one run, for people or as JSON."""

    def __init__(
        self,
        invocation: Invocation,
        settings: Settings,
        database: Database,
        screen: Screen,
    ) -> None:
        self._invocation = invocation
        self._settings = settings
        self._database = database
        self._screen = screen

    def give(self, run_id: uuid.UUID, *, as_json: bool) -> ExitCode:
        """Show results, account and failures; return the exit code that the account means.

        Raises:
            ServiceUnavailableError: The database cannot be reached.
        """
        with self._database.read() as session:
            account = accounts.of_run(session, run_id)
            if as_json:
                self._as_json(session, account)
            else:
                self._for_people(session, account)
        return ExitCode.SUCCESS if account.is_complete else ExitCode.INCOMPLETE

    def _as_json(self, session: Session, account: Account) -> None:
        self._screen.write(
            document(
                run=account,
                usage=progress.read(session, account.run_id).calls,
                budgets=caps_of_run(session, account.run_id),
                results=stored_results.read(session, Wanted(run_id=account.run_id)),
                failures=accounts.failures(session, account.run, EVERY),
            )
        )

    def _for_people(self, session: Session, account: Account) -> None:
        wanted = Wanted(run_id=account.run_id)
        read = stored_results.read(session, wanted, MOST_RESULTS)
        self._screen.show(*rendered_results.laid_out(read))
        if len(read) == MOST_RESULTS:
            words = stored_results.count_in_words(session, wanted)
            self._screen.note(f"The first {len(read)} of {words} results are shown.")
        failed = accounts.failures(session, account.run, MOST_FAILURES)
        self._screen.show(*rendered_accounts.failures(failed))
        self._screen.show(*rendered_accounts.laid_out(account))
        caps = caps_of_run(session, account.run_id)
        self._screen.show(*rendered_accounts.budget_lines(caps))
        self._screen.tell(
            f"{rendered_accounts.in_words(account)} "
            f"{live.spent(progress.read(session, account.run_id))}."
        )
        self._say_how_to_go_on(account)
        self._say_where_to_look(account, has_results=bool(read))

    def _say_how_to_go_on(self, account: Account) -> None:
        paused = account.states[JobStatus.PAUSED]
        ended_badly = account.states[JobStatus.SUCCEEDED] < sum(account.states.values())
        if paused:
            self._screen.tell("Paused: nothing goes on by itself. Mend what is said above, then:")
        elif ended_badly:
            self._screen.tell("Take up again what has not succeeded with:")
        if ended_badly:
            self._suggest("retry", account.run)
        if account.is_interrupted:
            self._screen.tell("The intake was interrupted. Take in the rest with:")
            self._suggest("resume", account.run)

    def _say_where_to_look(self, account: Account, *, has_results: bool) -> None:
        self._screen.tell("Look further with:")
        self._suggest("runs", account.run)
        if has_results:
            self._suggest("results", "--run", account.run)
            name = account.run.replace("'", "''")
            quotes = "SELECT source, text, quote FROM fact_quotes WHERE grounded"
            self._suggest("sql", f"{quotes} AND run = '{name}'")

    def _suggest(self, *words: str) -> None:
        self._screen.suggest(suggestions.command(self._invocation, self._settings, *words))
