"""S05: statements of the reader role that must be refused, by the command and by its own login."""

from __future__ import annotations

import itertools
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from chordwise.errors import UsageError
from chordwise.pipeline.runs import tool_access, user_sql
from tests.faults.cluster import Cluster
from tests.faults.experiment import Experiment

# None of these may have an effect, whatever the session has set before.
WRITES = (
    "INSERT INTO runs (id) VALUES (gen_random_uuid())",
    "UPDATE results SET output = '{}'",
    "DELETE FROM documents",
    "TRUNCATE facts",
    "MERGE INTO runs USING jobs ON false WHEN NOT MATCHED THEN INSERT (name) VALUES ('x')",
    "WITH gone AS (DELETE FROM runs RETURNING *) SELECT * FROM gone",
    "EXPLAIN ANALYZE DELETE FROM runs",
    "SELECT * FROM runs FOR UPDATE",
    "SELECT query_to_xml('DELETE FROM runs RETURNING id', true, true, '')",
    "DO $$ BEGIN DELETE FROM runs; END $$",
    "DO $$ BEGIN LOCK TABLE runs IN SHARE MODE; END $$",
    "COPY runs FROM STDIN",
    "COPY runs FROM '/etc/passwd'",
    "COPY runs FROM PROGRAM 'id'",
    "DROP TABLE runs",
    "DROP VIEW document_results",
    "ALTER TABLE runs ADD COLUMN mine int",
    "COMMENT ON TABLE runs IS 'mine'",
    "CREATE INDEX ON runs (name)",
    "REINDEX TABLE runs",
    "CREATE TRIGGER mine BEFORE INSERT ON runs EXECUTE FUNCTION tell_of_outbox()",
)
OBJECTS = (
    "CREATE TABLE public.mine (x int)",
    "CREATE TABLE answers.mine (x int)",
    "CREATE TEMP TABLE mine (x int)",
    "SELECT * INTO answers.mine FROM runs",
    "CREATE SCHEMA mine",
    "CREATE VIEW public.mine AS SELECT 1",
    "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION answers.mine(cstring) RETURNS int AS 'libc.so.6', 'system' LANGUAGE c",
    "CREATE FUNCTION answers.mine() RETURNS text AS 'version' LANGUAGE internal",
    "CREATE FUNCTION answers.mine() RETURNS int LANGUAGE plpython3u AS 'return 1'",
    "CREATE LANGUAGE plpython3u",
    "CREATE EXTENSION dblink",
    "CREATE EXTENSION file_fdw",
    "CREATE FOREIGN DATA WRAPPER mine",
    "CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION tell_of_outbox()",
    "CREATE PUBLICATION mine FOR ALL TABLES",
    "CREATE DATABASE mine",
    "CREATE TABLESPACE mine LOCATION '/tmp'",
    "LOAD 'libc.so.6'",
)
ROLES = (
    "SET ROLE chordwise",
    "SET ROLE postgres",
    "SET ROLE chordwise_reader",
    "SET SESSION AUTHORIZATION chordwise",
    "SET session_replication_role = replica",
    "SET temp_file_limit = -1",
    "CREATE ROLE mine SUPERUSER",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "ALTER ROLE CURRENT_USER CREATEROLE",
    "ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'",
    "ALTER ROLE chordwise_reader PASSWORD 'known'",
    "ALTER ROLE chordwise_reader SET statement_timeout = 0",
    "ALTER ROLE chordwise_reader SET extra_float_digits = -15",
    "ALTER ROLE ALL SET statement_timeout = 0",
    "GRANT pg_read_server_files TO CURRENT_USER",
    "GRANT pg_execute_server_program TO chordwise_reader",
    "GRANT chordwise TO CURRENT_USER",
    "REASSIGN OWNED BY chordwise TO CURRENT_USER",
    "DROP OWNED BY chordwise",
    "ALTER SYSTEM SET log_statement = 'all'",
)
FILES_AND_SERVERS = (
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "COPY (SELECT 1) TO '{file}'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_binary_file('/etc/passwd')",
    "SELECT pg_stat_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT pg_ls_logdir()",
    "SELECT pg_ls_waldir()",
    "SELECT pg_ls_tmpdir()",
    "SELECT pg_current_logfile()",
    "SELECT current_setting('data_directory')",
    "SELECT current_setting('hba_file')",
    "SHOW config_file",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '{file}')",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT dblink('host=127.0.0.1', 'SELECT 1')",
    "CHECKPOINT",
)
FUNCTIONS = (
    "SELECT set_config('statement_timeout', '0', false)",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_xact_lock(1)",
    "SELECT pg_notify('chordwise_outbox', '')",
    "SELECT pg_logical_emit_message(false, 'x', 'x')",
    "SELECT pg_create_physical_replication_slot('mine')",
    "SELECT pg_create_restore_point('mine')",
    "SELECT pg_switch_wal()",
    "SELECT pg_reload_conf()",
    "SELECT pg_rotate_logfile()",
    "SELECT pg_backup_start('mine')",
    "SELECT pg_stat_reset()",
    "SELECT pg_log_backend_memory_contexts(pg_backend_pid())",
    "SELECT tell_of_outbox()",
)
SECRETS = (
    "SELECT * FROM outbox",
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_shadow",
    "SELECT * FROM pg_statistic",
    "SELECT * FROM pg_largeobject",
    "SELECT * FROM pg_hba_file_rules",
    "SELECT * FROM pg_file_settings",
    "SELECT * FROM pg_subscription",
)
STATEMENTS = (*WRITES, *OBJECTS, *ROLES, *FILES_AND_SERVERS, *FUNCTIONS, *SECRETS)
# PostgreSQL accepts these from every login; the command and the pages refuse them.
SESSION_STATEMENTS = (
    "SET default_transaction_read_only = off",
    "SET statement_timeout = 0",
    "LISTEN chordwise_outbox",
    "NOTIFY chordwise_outbox",
    "BEGIN",
    "DO $$ BEGIN END $$",
    "COPY documents TO STDOUT",
    "VACUUM",
    "SELECT 1; SELECT 2",
)
_CATALOG = """
SELECT
    (SELECT array_agg(relname ORDER BY relname) FROM pg_class
        WHERE relnamespace IN ('public'::regnamespace, 'answers'::regnamespace)),
    (SELECT count(*) FROM pg_namespace WHERE nspname !~ '^pg_'),
    (SELECT array_agg(extname ORDER BY extname) FROM pg_extension),
    (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace),
    (SELECT count(*) FROM pg_largeobject_metadata),
    (SELECT array_agg(rolname || rolsuper ORDER BY rolname) FROM pg_roles
        WHERE rolname NOT LIKE 'chordwise\\_tools\\_%'),
    (SELECT count(*) FROM pg_replication_slots)"""
_OF_OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE usename NOT IN (current_user, 'chordwise_reader')
    AND query NOT IN ('', '<insufficient privilege>')"""


def taken_by_sql(url: SecretStr, statements: Sequence[str]) -> list[str]:
    """Return the statements that the command and the pages do not refuse."""

    def is_taken(statement: str) -> bool:
        try:
            with user_sql.run_query(url, statement) as answer:
                list(itertools.islice(answer.rows, 10))
        except UsageError:
            return False
        return True

    return [statement for statement in statements if is_taken(statement)]


def taken_in_session(session: psycopg.Connection, statements: Sequence[str]) -> list[str]:
    """Return the statements that a session in autocommit mode does not refuse."""

    def is_taken(statement: str) -> bool:
        try:
            session.execute(statement.encode())
        except psycopg.Error:
            assert not session.closed, statement
            return False
        return True

    return [statement for statement in statements if is_taken(statement)]


@contextmanager
def logged_in(url: SecretStr) -> Iterator[psycopg.Connection]:
    """Open a session as another program does, and disable all limits that it may disable."""
    login = tool_access.create_login(url)
    address = make_conninfo(url.get_secret_value(), user=login.role, password=login.password)
    try:
        with psycopg.connect(address, autocommit=True) as session:
            session.execute("SET default_transaction_read_only = off")
            session.execute("SET statement_timeout = 0")
            yield session
    finally:
        tool_access.remove_login(url, login)


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_forbidden_statements_of_a_reader_are_refused(
    cluster: Cluster, experiment: Experiment, tmp_path: Path
) -> None:
    """S05: by the command and by its own login, while a document is analyzed."""
    statements = [statement.replace("{file}", f"{tmp_path}/mine") for statement in STATEMENTS]
    experiment.begin("S05", f"{len(statements)} statements of the reader role, by two interfaces")
    # Bypasses the proxy, which runs in this process and is blocked while libpq waits.
    url = SecretStr(cluster.database.postgres.url(cluster.name))
    cluster.start_both()
    cluster.submit(cluster.documents.write(chunks=24))
    before = cluster.rows(_CATALOG)
    slow: list[subprocess.CompletedProcess[str]] = []
    sleeping = threading.Thread(
        target=lambda: slow.append(cluster.run("sql", "SELECT pg_sleep(600)"))
    )
    sleeping.start()

    by_sql = taken_by_sql(url, [*statements, *SESSION_STATEMENTS])
    with logged_in(url) as session:
        in_session = taken_in_session(session, statements)
        seen_of_others = session.execute(_OF_OTHERS).fetchone()
        for _ in range(1_000):
            session.execute("NOTIFY chordwise_outbox")
        with session.transaction():  # an open snapshot does not block workers
            session.execute("SELECT count(*) FROM chunks")
            cluster.wait_until_finished()
    with user_sql.run_query(url, "SELECT generate_series(1, 2000000000)") as answer:
        first = list(itertools.islice(answer.rows, 2))
    sleeping.join()
    experiment.fault_is_over()

    experiment.finish(notes="nothing changed; a statement of 10 minutes ended after 30 s")
    assert (by_sql, in_session) == ([], [])
    assert seen_of_others == (0,)
    assert first == [(1,), (2,)]
    assert cluster.rows(_CATALOG) == before
    assert list(tmp_path.glob("mine*")) == []
    assert slow[0].returncode == 2
    assert "took longer than 30 seconds" in slow[0].stderr
