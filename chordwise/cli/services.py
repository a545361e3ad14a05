"""`chordwise up`, `down` and `migrate`: the services on this machine and the schema."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr
from sqlalchemy.exc import ProgrammingError

from chordwise.cli import access, scheduled
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson, Model
from chordwise.cli.web import shown_link
from chordwise.embedded import processes, stack
from chordwise.embedded.home import home_at, read_address
from chordwise.errors import ConfigurationError
from chordwise.rendering.screen import Screen
from chordwise.settings import Settings
from chordwise.storage import migration
from chordwise.storage.database import open_engine, translate_errors


def up(invocation: Invocation, *, model: Model = None) -> None:
    """Run all services in the foreground until Ctrl-C. The services include the web server.

    chordwise up

    chordwise up --model local/model.gguf
    """
    settings, screen = invocation.settings(model=model), invocation.screen
    if settings.schedules:
        scheduled.check_all(settings)

    def ready(reached: Settings) -> None:
        screen.info(f"Ready. Data folder: {reached.home}. Press Ctrl-C to stop.")
        threading.Thread(target=_print_link, args=(screen, reached.home), daemon=True).start()

    # The logs of the servers are shown with --verbose only.
    patterns = ("*",) if invocation.is_verbose else ("worker", "scheduler", "web", "llama*")
    logs = LogLines(settings.home.expanduser() / "logs", screen.note, *patterns)
    with logs.followed():
        stack.run_in_foreground(
            settings,
            config=invocation.config,
            on_progress=screen.note,
            on_ready=ready,
            serves_pages=True,
        )
    screen.info("Stopped.")


_LINK_SECONDS = 30.0


def _print_link(screen: Screen, folder: Path) -> None:
    """Print the link to the pages once they are served."""
    home = home_at(folder)
    file = home.web_link_file
    if processes.wait_until(lambda: read_address(file) is not None, _LINK_SECONDS, every=0.2):
        address = read_address(file)
        if address is None:
            screen.info("The web server stopped.")
            return
        screen.info_verbatim(f"Web pages: {shown_link(address.url, sys.stderr)}")
    else:
        screen.note(f"The web server has not started yet. See {home.log('web')}.")


def down(invocation: Invocation, *, as_json: AsJson = False) -> None:
    """Stop all services on this machine. This includes `chordwise up` in another terminal.

    chordwise down
    """
    home = _home(invocation)
    was_up = stack.stop(home)
    if as_json:
        invocation.screen.write_json(stopped=was_up)
    else:
        invocation.screen.info("Stopped." if was_up else f"No services are running for {home}.")


def _home(invocation: Invocation) -> Path:
    """Return the home, even if other settings are wrong."""
    try:
        return invocation.settings().home
    except ConfigurationError as error:
        home = invocation.find_home()
        invocation.screen.note(f"{error.what} Stopping the services of {home} anyway.")
        return home


_ROLES = """-- Run this once as an administrator of the server, in the database of Chordwise.
-- OWNER is the role in CHORDWISE_DATABASE_URL.
CREATE ROLE chordwise_reader NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
GRANT chordwise_reader TO OWNER;
GRANT USAGE ON SCHEMA public, answers TO chordwise_reader;
GRANT SELECT ON {readable} TO chordwise_reader;
-- A login for `chordwise sql` (CHORDWISE_READER_URL) and for other programs. It may not switch to
-- chordwise_reader, whose settings it could change; before PostgreSQL 16, it is no member of it,
-- and the statements from GRANT USAGE on have to be run again after each update of Chordwise.
CREATE ROLE chordwise_tools LOGIN PASSWORD 'choose one';
DO $$ BEGIN
    IF current_setting('server_version_num')::int >= 160000 THEN
        EXECUTE 'GRANT chordwise_reader TO chordwise_tools WITH INHERIT TRUE, SET FALSE';
    ELSE
        GRANT USAGE ON SCHEMA public, answers TO chordwise_tools;
        GRANT SELECT ON {readable} TO chordwise_tools;
        GRANT SELECT ON ALL TABLES IN SCHEMA answers TO chordwise_tools;
        ALTER DEFAULT PRIVILEGES FOR ROLE OWNER IN SCHEMA answers
            GRANT SELECT ON TABLES TO chordwise_tools;
    END IF;
END $$;
ALTER ROLE chordwise_tools SET default_transaction_read_only = on;
ALTER ROLE chordwise_tools SET search_path = answers, public;
"""


def migrate(
    invocation: Invocation,
    *,
    print_roles: Annotated[
        bool, typer.Option("--print-roles", help="Print the SQL that creates the read-only roles.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Update the database schema to this version. Waits for a migration that is running.

    chordwise migrate

    CHORDWISE_DATABASE_URL=postgresql://… chordwise migrate
    """
    settings, screen = invocation.settings(), invocation.screen
    if print_roles:
        screen.write(_ROLES.format(readable=", ".join(migration.readable_names())))
        return
    # With an address, no service is started: the stack calls this command.
    url = settings.database_url or access.reach(invocation, settings).require_database_url()
    before, after = _migrate(url)
    if as_json:
        screen.write_json(before=before, after=after)
    elif before == after:
        screen.info(f"The schema is up to date ({after}).")
    else:
        screen.info(f"Updated the schema from {before or 'empty'} to {after}.")


def _migrate(url: SecretStr) -> tuple[str | None, str]:
    engine = open_engine(url, pool_size=1, name="chordwise migrate")
    try:
        with translate_errors():
            return migration.migrate(engine)
    except ProgrammingError as error:
        reason = str(error.orig).strip().partition("\n")[0]
        raise ConfigurationError(
            f"The schema cannot be updated: {reason}.",
            "The role in CHORDWISE_DATABASE_URL must own the tables and the schema public.",
        ) from error
    finally:
        engine.dispose()


_INTERVAL_SECONDS = 0.25
_NAME_WIDTH = 9
_LONGEST_READ = 200_000


class LogLines:
    """Follows the log files in a folder; a thread passes new lines to `print_line`.

    `patterns` select the names of the files.
    """

    def __init__(self, folder: Path, print_line: Callable[[str], None], *patterns: str) -> None:
        self._folder = folder
        self._print_line = print_line
        self._patterns = patterns or ("*",)
        self._read: dict[Path, int] = {file: file.stat().st_size for file in self._files()}
        self._rest: dict[Path, str] = {}

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Pass on new lines until the end of the block."""
        try:
            with processes.repeating(self.forward, _INTERVAL_SECONDS):
                yield
        finally:
            self.forward()

    def forward(self) -> None:
        """Pass on the lines written since the last call."""
        for file in self._files():
            try:
                self._read_new_lines(file)
            except OSError:
                continue

    def _files(self) -> list[Path]:
        return sorted(file for name in self._patterns for file in self._folder.glob(f"{name}.log"))

    def _read_new_lines(self, file: Path) -> None:
        size = file.stat().st_size
        start = self._read.get(file, 0)
        if size < start:  # rotated
            start = 0
        with file.open("rb") as opened:
            opened.seek(start)
            data = opened.read(_LONGEST_READ)
        self._read[file] = start + len(data)
        text = self._rest.pop(file, "") + data.decode("utf-8", "replace")
        *lines, self._rest[file] = text.split("\n")
        for line in lines:
            self._print_line(f"{file.stem:<{_NAME_WIDTH}} {line}")
