"""Tests that SQL of a user can read what it may, and do nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import make_url

from chordwise.errors import ConfigurationError, ServiceUnavailableError, UsageError
from chordwise.pipeline.diagnosis.doctor import diagnose
from chordwise.pipeline.diagnosis.outcome import Check, CheckStatus
from chordwise.pipeline.runs import user_sql
from chordwise.pipeline.runs.tool_access import LOGIN
from chordwise.pipeline.runs.user_sql import READER, Row
from chordwise.settings import Settings
from chordwise.storage.database import open_engine
from chordwise.storage.postgresql import Lock
from tests.conftest import Servers
from tests.fakes.commands import run

REFUSED = [
    "INSERT INTO runs (id) VALUES (gen_random_uuid())",
    "UPDATE runs SET name = 'x'",
    "DELETE FROM runs",
    "DROP TABLE runs",
    "CREATE TABLE mine (x int)",
    "CREATE TEMP TABLE mine (x int)",
    "TRUNCATE runs",
    "COPY runs TO PROGRAM 'cat > /tmp/owned'",
    "COPY (SELECT 1) TO '/tmp/owned'",
    "DO $$ BEGIN PERFORM 1; END $$",
    "CALL nothing()",
    "RESET ROLE",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SET default_transaction_read_only = off",
    "BEGIN",
    "COMMIT",
    "LISTEN x",
    "",
    "   -- nothing\n",
    "/* SELECT */ DELETE FROM runs",
    "SELECT 1; SELECT 2",
    "SELECT 1; COMMIT; DROP TABLE runs",
    "WITH gone AS (DELETE FROM runs RETURNING *) SELECT * FROM gone",
    "EXPLAIN ANALYZE DELETE FROM runs",
    "SELECT * INTO mine FROM runs",
    "SELECT * FROM runs FOR UPDATE",
    "SELECT pg_read_file('/etc/hostname')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/hostname')",
    "SELECT lo_create(0)",
    "SELECT pg_reload_conf()",
    "SELECT * FROM outbox",
    "SELECT * FROM pg_authid",
    "SELECT set_config('role', 'chordwise', false)",
    "SELECT set_config('transaction_read_only', 'off', true) FROM runs, pg_sleep(0), nothing",
    "SELECT * FROM there_is_no_such_table",
    "SELECT \x00",
    "SELEC 1",
]


def ask(database_url: SecretStr, statement: str) -> list[Row]:
    with user_sql.run_query(database_url, statement) as answer:
        return list(answer.rows)


@pytest.fixture
def owner(database_url: SecretStr) -> Iterator[psycopg.Connection[Row]]:
    address = make_url(database_url.get_secret_value()).set(drivername="postgresql")
    with psycopg.connect(
        address.render_as_string(hide_password=False), autocommit=True
    ) as connection:
        yield connection


def test_a_statement_that_does_more_than_read_is_refused(
    database_url: SecretStr, owner: psycopg.Connection[Row]
) -> None:
    """The first word, the transaction and the role each refuse it independently."""
    for statement in REFUSED:
        with pytest.raises(UsageError):
            ask(database_url, statement)

        assert owner.execute("SELECT count(*) FROM runs").fetchone() == (0,)
        assert owner.execute("SELECT to_regclass('mine')").fetchone() == (None,)


READ: tuple[tuple[str, list[Row]], ...] = (
    ("SELECT 1", [(1,)]),
    ("  -- a comment\n select 1", [(1,)]),
    ("/* another */ (SELECT 1)", [(1,)]),
    ("WITH one AS (SELECT 1) SELECT * FROM one", [(1,)]),
    ("VALUES (1)", [(1,)]),
    ("SELECT count(*)::int + 1 FROM documents", [(1,)]),
    ("SELECT 'a%sb' LIKE '%s%'", [(True,)]),
    ("SELECT id, name FROM runs", []),
)


def test_a_statement_that_reads_is_answered(database_url: SecretStr) -> None:
    """A percent sign is not a placeholder; an empty answer has its columns."""
    for statement, rows in READ:
        with user_sql.run_query(database_url, statement) as answer:
            assert list(answer.rows) == rows, statement
            assert rows or list(answer.columns) == ["id", "name"]


COOKBOOK = "docs/sql-cookbook.md has statements to begin with."


MISTAKES = (
    ("SELEC 1", "Syntax error", "Did you mean SELECT?"),
    ("EXPLIAN SELECT 1", "Syntax error", "EXPLAIN?"),
    ("SELECT 1; SELECT 2", ".", "Run one statement at a time."),
    ("SELECT nothing FROM runs", "nothing", COOKBOOK),
    ("SELECT 1 / 0", "division", COOKBOOK),
    ("SELECT 10 / (3 - n) FROM generate_series(1, 5) AS n", "division by zero", ""),
)


def test_a_mistake_has_a_hint(database_url: SecretStr) -> None:
    """Only a wrong name lists names; an error may come after some rows."""
    for statement, said, hint in MISTAKES:
        with pytest.raises(UsageError, match=said) as refused:
            ask(database_url, statement)

        assert refused.value.hint.endswith(hint), statement


def test_an_unknown_column_has_a_hint_with_those_of_its_table(database_url: SecretStr) -> None:
    for statement, hint in (
        ("SELECT type FROM results", "Similar: analysis_type"),
        ("SELECT r.outptu FROM results AS r", "Similar: output"),
        ("SELECT nothing", "docs/sql-cookbook.md"),
    ):
        with pytest.raises(UsageError, match="does not exist") as refused:
            ask(database_url, statement)

        assert refused.value.hint.startswith(hint), statement


def test_every_view_and_table_for_users_can_be_read(database_url: SecretStr) -> None:
    with pytest.raises(UsageError) as caught:
        ask(database_url, "SELECT * FROM fact_qoutes")

    similar, _, statement = caught.value.hint.partition(". To list all: ")
    assert similar.startswith("Similar: fact_quotes, ")
    assert similar.count(", ") == 2
    names = [str(name) for _, name in ask(database_url, statement)]
    assert {"documents", "results", "fact_quotes", "run_accounts", "model_costs_by_day"} < {*names}
    assert "outbox" not in names
    for name in names:
        ask(database_url, f"SELECT * FROM {name}")  # noqa: S608 - names of our own tables


def test_the_session_belongs_to_the_reader(
    database_url: SecretStr, owner: psycopg.Connection[Row]
) -> None:
    """The session user is the reader, so that it cannot switch back to the owner.

    It sees the comments, and its password lasts minutes.
    """
    rows = ask(
        database_url,
        "SELECT session_user::text, current_user::text, current_setting('transaction_read_only'),"
        " current_setting('statement_timeout'), current_setting('search_path')",
    )
    comments = ask(
        database_url,
        "SELECT obj_description('run_costs'::regclass, 'pg_class'),"
        " col_description('run_costs'::regclass, ordinal_position)"
        " FROM information_schema.columns"
        " WHERE table_name = 'run_costs' AND column_name = 'cost_usd'",
    )
    password = owner.execute(
        "SELECT rolvaliduntil - now() < interval '11 minutes', left(rolpassword, 14)"
        " FROM pg_authid WHERE rolname = %s",
        (READER,),
    ).fetchone()

    assert rows == [(READER, READER, "on", "30s", "public")]
    assert comments == [
        (
            "The calls and the cost of each run, including the transcription of pages.",
            "Sum of the known costs in US dollars; null if none is known.",
        )
    ]
    assert password == (True, "SCRAM-SHA-256$")


def test_a_large_answer_need_not_be_read_to_the_end(database_url: SecretStr) -> None:
    endless = "SELECT generate_series(1, 1000000000)"

    with user_sql.run_query(database_url, endless) as answer:
        rows = list(itertools.islice(answer.rows, 3))

    assert rows == [(1,), (2,), (3,)]


def test_a_statement_without_rows_runs_once(
    database_url: SecretStr, owner: psycopg.Connection[Row]
) -> None:
    """A second execution would use settings that the first one has changed."""
    owner.execute("GRANT EXECUTE ON FUNCTION set_config TO PUBLIC")
    statement = """
        WITH earlier AS MATERIALIZED (SELECT current_setting('statement_timeout') AS setting),
        changed AS MATERIALIZED (SELECT set_config('statement_timeout', '0', false) FROM earlier)
        SELECT 1 / (length(setting) - 1) AS second FROM earlier, changed WHERE setting = '0'"""

    with user_sql.run_query(database_url, statement) as answer:
        assert list(answer.columns) == ["second"]
        assert list(answer.rows) == []


@pytest.mark.parametrize("is_disabled", [False, True])
def test_a_statement_that_takes_too_long_is_ended(
    database_url: SecretStr,
    owner: psycopg.Connection[Row],
    is_disabled: bool,  # noqa: FBT001 - a parameter
) -> None:
    """The client enforces a timeout that the statement has disabled."""
    owner.execute("GRANT EXECUTE ON FUNCTION set_config TO PUBLIC")

    with user_sql.reader(database_url, statement_seconds=1) as connection:
        if is_disabled:
            connection.execute("SELECT set_config('statement_timeout', '0', false)")
        with pytest.raises(UsageError, match="took longer"), user_sql.explaining(seconds=1):
            connection.execute("SELECT pg_sleep(600)")

    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600%'"
    assert owner.execute(running).fetchone() == (0,)


def test_harmful_functions_are_refused(database_url: SecretStr) -> None:
    """Readers take no locks, write nothing to the server's log, and raise no limits."""
    for call in (
        *("pg_advisory_lock(4271002)", "pg_try_advisory_lock(4271002)"),
        *("pg_advisory_lock_shared(1, 2)", "pg_try_advisory_xact_lock(1)"),
        "pg_logical_emit_message(false, 'x', repeat('x', 1000))",
        *("pg_notify('x', 'y')", "set_config('statement_timeout', '0', false)"),
        *("set_config('work_mem', '1GB', true)", "pg_terminate_backend(1)"),
        "lo_from_bytea(0, 'x')",
    ):
        with pytest.raises(UsageError, match="permission denied for function"):
            ask(database_url, f"SELECT {call}")


def test_readers_cannot_take_the_locks_of_the_processes(database_url: SecretStr) -> None:
    with user_sql.reader(database_url) as connection:
        assert not {*Lock} & {*user_sql.readable_names(connection)}
        for lock in Lock:
            for mode in ("ACCESS SHARE", "SHARE UPDATE EXCLUSIVE"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(f"LOCK TABLE {lock} IN {mode} MODE".encode())
                connection.rollback()


def test_temporary_files_are_limited(
    database_url: SecretStr, owner: psycopg.Connection[Row]
) -> None:
    assert ask(database_url, "SELECT current_setting('temp_file_limit')") == [("2GB",)]
    name = sql.Identifier(owner.info.dbname)
    owner.execute(sql.SQL("ALTER DATABASE {} SET temp_file_limit = '1MB'").format(name))

    with pytest.raises(UsageError, match="temp_file_limit") as caught:
        ask(database_url, "SELECT DISTINCT n::text FROM generate_series(1, 1000000) AS n")

    assert "LIMIT" in caught.value.hint
    with pytest.raises(UsageError, match="too large for the server"):
        ask(database_url, f"SELECT '{'[' * 100_000}'::json")


def test_concurrent_readers_do_not_lock_each_other_out(database_url: SecretStr) -> None:
    """Each sets its own password; a lock separates them until they have logged in."""
    with ThreadPoolExecutor(6) as threads:
        rows = list(threads.map(ask, [database_url] * 6, ["SELECT 1"] * 6))

    assert rows == [[(1,)]] * 6


def test_a_role_that_may_not_set_the_password_gets_a_hint(
    database_url: SecretStr, owner: psycopg.Connection[Row]
) -> None:
    owner.execute("DROP ROLE IF EXISTS humble")
    owner.execute("CREATE ROLE humble LOGIN PASSWORD 'humble'")
    url = make_url(database_url.get_secret_value()).set(username="humble", password="humble")  # noqa: S106

    with pytest.raises(ConfigurationError, match="may not switch to chordwise_reader") as caught:
        ask(SecretStr(url.render_as_string(hide_password=False)), "SELECT 1")

    assert "GRANT chordwise_reader TO" in caught.value.hint
    owner.execute("DROP ROLE humble")


def test_superusers_are_refused(database_url: SecretStr, owner: psycopg.Connection[Row]) -> None:
    role = sql.Identifier(READER)
    owner.execute(sql.SQL("ALTER ROLE {} SUPERUSER").format(role))
    try:
        with pytest.raises(ConfigurationError, match="superuser"):
            ask(database_url, "SELECT 1")
    finally:
        owner.execute(sql.SQL("ALTER ROLE {} NOSUPERUSER").format(role))


ODD_SETTINGS = {
    "extra_float_digits": "-15",
    "datestyle": "German",
    "intervalstyle": "iso_8601",
    "timezone": "Asia/Kolkata",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "search_path": "answers",
    "row_security": "off",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
}
VALUES = (
    r"SELECT 0.249::float8::text, DATE '2020-03-01'::text, INTERVAL '90 min'::text,"
    r" TIMESTAMPTZ '2020-03-01 00:00Z'::text, 'a\n'::text, '\x00'::bytea::text,"
    r" NULL = NULL, current_setting('search_path'), current_setting('row_security')"
)
AS_STORED = (
    *("0.249", "2020-03-01", "01:30:00", "2020-03-01 00:00:00+00", r"a\n", r"\x00"),
    *(None, "public", "on"),
)


def set_odd_values(owner: psycopg.Connection[Row], what: sql.Composable) -> None:
    for name, value in ODD_SETTINGS.items():
        owner.execute(
            sql.SQL("ALTER {} SET {} = {}").format(what, sql.Identifier(name), sql.Literal(value))
        )


def role(name: str) -> sql.Composed:
    return sql.SQL("ROLE {}").format(sql.Identifier(name))


def test_settings_of_a_role_or_a_database_change_no_value(
    database_url: SecretStr, owner: psycopg.Connection[Row]
) -> None:
    of_database = sql.SQL("DATABASE {}").format(sql.Identifier(owner.info.dbname))
    for what in (role(READER), sql.SQL("{} IN {}").format(role(READER), of_database), of_database):
        set_odd_values(owner, what)

    rows = ask(database_url, VALUES)
    engine = open_engine(database_url)
    with engine.connect() as connection:
        others = connection.exec_driver_sql(VALUES).one()
    engine.dispose()

    left = "SELECT count(*) FROM pg_db_role_setting WHERE setrole = 'chordwise_reader'::regrole"
    assert rows == [AS_STORED]
    assert tuple(others) == AS_STORED
    assert owner.execute(left).fetchone() == (0,)


@pytest.fixture
def tools(
    database_url: SecretStr, owner: psycopg.Connection[Row], capsys: pytest.CaptureFixture[str]
) -> Iterator[SecretStr]:
    """Return the address of the login that `chordwise migrate --print-roles` creates."""
    assert run(("migrate", "--print-roles")) == 0
    statements = capsys.readouterr().out.replace("CREATE ROLE chordwise_reader", "-- exists:")
    statements = statements.replace("OWNER", owner.info.user).replace("choose one", "known")
    owner.execute(statements.encode())
    url = make_url(database_url.get_secret_value())
    address = url.set(username=LOGIN, password="known")  # noqa: S106 - of this test
    yield SecretStr(address.render_as_string(hide_password=False))
    owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(LOGIN)))


def test_the_login_of_other_programs_cannot_change_what_others_read(
    database_url: SecretStr, tools: SecretStr, owner: psycopg.Connection[Row]
) -> None:
    owner.execute("CREATE VIEW answers.later AS SELECT 1 AS number")
    owner.execute("GRANT SELECT ON answers.later TO chordwise_reader")
    address = make_url(tools.get_secret_value()).set(drivername="postgresql")
    with psycopg.connect(address.render_as_string(hide_password=False), autocommit=True) as login:
        login.execute("SET default_transaction_read_only = off")
        for statement in (
            "SET ROLE chordwise_reader",
            "ALTER ROLE chordwise_reader SET extra_float_digits = -15",
            "ALTER ROLE chordwise_reader PASSWORD 'known'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                login.execute(statement.encode())
        set_odd_values(login, role(LOGIN))

    database = sql.Identifier(str(address.database))
    setting = sql.SQL("ALTER ROLE {} IN DATABASE {} SET intervalstyle = 'iso_8601'")
    owner.execute(setting.format(sql.Identifier(LOGIN), database))
    rows = ask(tools, VALUES)
    changed = user_sql.changed_settings(database_url, [LOGIN])

    assert rows == [AS_STORED]
    assert ask(tools, "SELECT count(*) FROM runs") == [(0,)]
    assert ask(tools, "SELECT number FROM answers.later") == [(1,)]
    assert f"{LOGIN}: extra_float_digits=-15" in changed
    assert [name for name in ODD_SETTINGS if any(name in line.lower() for line in changed)] == [
        name for name in ODD_SETTINGS if name not in ("timezone", "search_path")
    ]
    assert changed[f"{LOGIN}: extra_float_digits=-15"] == (
        f"ALTER ROLE {LOGIN} RESET extra_float_digits;"
    )
    for statement in changed.values():
        owner.execute(statement.encode())
    assert user_sql.changed_settings(database_url, [LOGIN]) == {}


def test_doctor_names_settings_that_change_how_values_are_written(
    settings: Settings, owner: psycopg.Connection[Row]
) -> None:
    """The next login of the reader role removes them; a time zone changes no value."""
    for setting in ("extra_float_digits = -15", "timezone = 'Asia/Kolkata'"):
        owner.execute(f"ALTER ROLE chordwise_reader SET {setting}".encode())

    def reader_check() -> Check:
        return next(check for check in diagnose(settings) if check.name == "reader")

    first, second = reader_check(), reader_check()

    assert first.status is CheckStatus.WARN
    assert first.finding.endswith("written: chordwise_reader: extra_float_digits=-15")
    assert second.status is CheckStatus.OK


def test_an_unreachable_server_is_unavailable(servers: Servers) -> None:
    url = make_url(servers.postgres.url()).update_query_dict({"port": "5433"})

    with pytest.raises(ServiceUnavailableError):
        ask(SecretStr(url.render_as_string(hide_password=False)), "SELECT 1")
