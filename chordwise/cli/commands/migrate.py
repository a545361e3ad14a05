"""Operation: Update the database schema to this version."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy.exc import ProgrammingError

from chordwise.cli import access
from chordwise.cli.invocation import Invocation
from chordwise.cli.options import AsJson
from chordwise.errors import ConfigurationError
from chordwise.storage import migration
from chordwise.storage.database import open_engine, translate_errors

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
    engine = open_engine(url, pool_size=1, name="chordwise migrate")
    try:
        with translate_errors():
            before, after = migration.migrate(engine)
    except ProgrammingError as error:
        reason = str(error.orig).strip().partition("\n")[0]
        raise ConfigurationError(
            f"The schema cannot be updated: {reason}.",
            "The role in CHORDWISE_DATABASE_URL must own the tables and the schema public.",
        ) from error
    finally:
        engine.dispose()
    if as_json:
        screen.write_json(before=before, after=after)
    elif before == after:
        screen.info(f"The schema is up to date ({after}).")
    else:
        screen.info(f"Updated the schema from {before or 'empty'} to {after}.")
