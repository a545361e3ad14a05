"""The user's SQL, as a role that can only read the results.

The statement runs in a session that logged in as `chordwise_reader`, or as the reader in the
settings. Unlike `SET ROLE`, this leaves no way back to the owner's rights, whatever the statement
contains. If the owner may not set the reader's password, `SET ROLE` is used instead, in a read-only
transaction.
"""

from __future__ import annotations

import difflib
import re
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo
from psycopg.pq import ExecStatus
from pydantic import SecretStr

from chordwise.domain.identifiers import nearest, similar_names
from chordwise.domain.people import KEY_SETTING, OPERATOR, READING_AS
from chordwise.errors import ConfigurationError, ServiceUnavailableError, UsageError
from chordwise.relations.relation import Row as DictRow
from chordwise.relations.relation import rows
from chordwise.storage.postgresql import (
    VALUE_SETTINGS,
    BoundedConnection,
    Lock,
    address_of,
    as_options,
)

READER = "chordwise_reader"
STATEMENT_SECONDS = 30
_IDLE_SECONDS = 60
# The delay after the server's time limit at which the client cancels a statement.
_CLIENT_MARGIN_SECONDS = 2.0
_LOGIN_ATTEMPTS = 3
_CONNECT_SECONDS = 10
_READING = ("select", "with", "values", "table", "explain", "show")
_WRITING = ("insert", "update", "delete", "merge", "create", "alter", "drop", "set", "call")
_WORD = re.compile(r"\w*")
# White space, comments and parentheses may precede the first word.
_BEFORE_FIRST_WORD = re.compile(r"(?:\s|\(|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)
_READABLE = """
SELECT CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname
FROM pg_class AS c INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN ('public', 'answers') AND c.relkind IN ('r', 'v')
    AND has_table_privilege(c.oid, 'SELECT')
ORDER BY n.nspname, c.relkind DESC, c.relname
"""
_TOO_LARGE = (
    errors.ConfigurationLimitExceeded,
    errors.DiskFull,
    errors.OutOfMemory,
    errors.StatementTooComplex,
)
_WHERE_NAMES_HELP = (errors.UndefinedTable, errors.InsufficientPrivilege)


RISKY_FUNCTIONS = (
    "set_config",
    "pg_logical_emit_message",
    "pg_notify",
    "pg_cancel_backend",
    "pg_terminate_backend",
)
"""Functions that by default every role may call, and that no reader needs.

`_CALLABLE` adds those for advisory locks and large objects. They take locks, write, notify the
listeners of the database, end sessions, or change limits.
"""
_CALLABLE = """
SELECT DISTINCT proname FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace
    AND (proname ~ '^(pg_.*advisory|lo_|lowrite)' OR proname = ANY(%s))
    AND has_function_privilege(oid, 'EXECUTE')
ORDER BY proname
"""

Row: TypeAlias = tuple[object, ...]
Connection: TypeAlias = BoundedConnection
Address: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """The columns of a statement, and an iterator over its rows."""

    columns: Sequence[str]
    rows: Iterator[Row]


@contextmanager
def run_query(
    database_url: SecretStr, statement: str, is_unwanted: Callable[[], bool] | None = None
) -> Iterator[QueryResult]:
    """Run one read-only statement; the rows can be read until the block ends.

    As soon as `is_unwanted` returns true, the statement is cancelled.

    Raises:
        UsageError: The statement is not read-only, or PostgreSQL refuses it.
        ConfigurationError: The reader role is missing, or its password may not be set.
    """
    check_reading(statement)
    if READING_AS.get() is not None and _first_word(statement) == "explain":
        what = "EXPLAIN is for those who may read everything: it counts hidden rows."
        raise UsageError(what, "Run the statement itself.")
    with reader(database_url) as connection:
        connection.is_unwanted = is_unwanted
        readable = readable_names(connection)
        cursor = connection.cursor()
        # Stream the rows, as a large result may not fit into memory. The extended protocol accepts
        # a single statement only. Closing the stream cancels the rest.
        with explaining(readable), _naming_columns(connection, statement):
            columns = _described(connection, statement)
        with explaining(readable), closing(_stream(cursor, statement)) as rows:
            first = next(rows, None)
            yield QueryResult(columns=columns, rows=_chained(first, rows, readable))


def callable_functions(database_url: SecretStr) -> list[str]:
    """Log in as the reader; return the functions that it can call but should not be able to.

    Raises:
        ConfigurationError: The role is missing, or cannot log in.
    """
    with reader(database_url) as connection:
        rows = connection.execute(_CALLABLE, (list(RISKY_FUNCTIONS),))
        return [str(row[0]) for row in rows]


def changed_settings(database_url: SecretStr, logins: Sequence[str]) -> dict[str, str]:
    """Return the settings of the reader role and of logins by which numbers or dates differ.

    Each has the statement that removes it.
    """
    names = [name for name in VALUE_SETTINGS if name not in ("search_path", "timezone")]
    with _translating_errors(), _connect(address_of(database_url)) as session:
        rows = session.execute(_CHANGED, ([READER, *logins], names))
        return {str(setting): str(statement) for setting, statement in rows}


_CHANGED = """
SELECT DISTINCT
    concat_ws(': ', r.rolname, d.datname, setting),
    'ALTER ROLE ' || quote_ident(r.rolname)
        || coalesce(' IN DATABASE ' || quote_ident(d.datname), '')
        || ' RESET ' || quote_ident(split_part(setting, '=', 1)) || ';'
FROM pg_db_role_setting AS s
INNER JOIN pg_roles AS r ON r.oid = s.setrole
LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
CROSS JOIN unnest(s.setconfig) AS setting
WHERE r.rolname = ANY(%s) AND lower(split_part(setting, '=', 1)) = ANY(%s)
ORDER BY 1
"""


def _described(connection: Connection, statement: str) -> list[str]:
    """Return the column names of a statement without running it."""
    encoding = connection.info.encoding
    prepared = connection.pgconn.prepare(b"", statement.encode(encoding))
    if prepared.status != ExecStatus.COMMAND_OK:
        raise errors.error_from_result(prepared, encoding=encoding)
    described = connection.pgconn.describe_prepared(b"")
    names = [described.fname(number) or b"" for number in range(described.nfields)]
    return [name.decode(encoding) for name in names]


def _stream(cursor: psycopg.Cursor[Row], statement: str) -> Generator[Row, None, None]:
    yield from cursor.stream(statement)


def _chained(first: Row | None, rows: Iterator[Row], readable: Sequence[str]) -> Iterator[Row]:
    if first is None:
        return
    yield first
    with explaining(readable):
        yield from rows


def check_reading(statement: str) -> None:
    """Check by its first word that a statement is read-only.

    Raises:
        UsageError: It is not.
    """
    # The server would not receive the text after a NUL.
    first = _first_word(statement)
    near = difflib.get_close_matches(first, (*_READING, *_WRITING), n=1, cutoff=0.7)
    if near and near[0] in _READING and first not in (*_READING, *_WRITING):
        raise UsageError(
            f"Syntax error at “{first.upper()}”: no statement begins like that.",
            f"Did you mean {near[0].upper()}?",
        )
    if first not in _READING or "\0" in statement:
        raise UsageError(
            "Only read-only statements are allowed: SELECT, WITH, VALUES, TABLE, EXPLAIN, SHOW.",
            "To change results, analyze the documents again.",
        )


def _first_word(statement: str) -> str:
    begin = _BEFORE_FIRST_WORD.match(statement)
    word = _WORD.match(statement, begin.end() if begin else 0)
    return word.group().lower() if word else ""


@contextmanager
def reader(
    database_url: SecretStr,
    statement_seconds: int = STATEMENT_SECONDS,
    idle_seconds: int = _IDLE_SECONDS,
) -> Iterator[Connection]:
    """Log in as the reader role, with time limits for statements and for idle transactions.

    The server cancels a statement that takes longer. If the statement has disabled that, the client
    cancels it.

    Raises:
        ConfigurationError: The role is missing, or cannot log in.
    """
    address = address_of(database_url)
    options = (
        f"-c default_transaction_read_only=on -c statement_timeout={statement_seconds}s "
        f"-c lock_timeout=5s -c idle_in_transaction_session_timeout={idle_seconds}s"
    )
    with _translating_errors(), _opened(address, options) as connection:
        connection.answer_seconds = statement_seconds + _CLIENT_MARGIN_SECONDS
        connection.cancels = True
        yield connection


_IS_READER = """
SELECT has_table_privilege('runs', 'SELECT') AND NOT has_table_privilege('outbox', 'SELECT')
"""


_KEY = "SELECT key FROM reader_keys WHERE name = %s"


def _opened(address: Address, options: str) -> Connection:
    """Return a reader's session: of the user in the address if it is one, else of the role.

    The session of the role has the key of the person who reads (`storage/closed_profiles.py`).
    """
    connection = _connect(address, options, autocommit=False)
    connection.read_only = True
    row: Row | None = None
    with suppress(errors.UndefinedTable, errors.UndefinedObject, errors.InsufficientPrivilege):
        row = connection.execute(_IS_READER).fetchone()
        if row and not row[0]:
            reader_name = READING_AS.get()
            # A process has the key of operators, and an unidentified person none.
            name = OPERATOR if reader_name is None else reader_name or None
            for (key,) in connection.execute(_KEY, (name,)):
                options += f" -c {KEY_SETTING}={key}"
    connection.rollback()
    if row and row[0]:
        return connection
    connection.close()
    try:
        return _login(address, options)
    except errors.InsufficientPrivilege:
        return _open_as_reader(address, options)


def _open_as_reader(address: Address, options: str) -> Connection:
    """Return a session of the owner after `SET ROLE` to the reader role."""
    session = _connect(address, options, autocommit=False)
    try:
        session.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(READER)))
        session.commit()
    except psycopg.Error:
        session.close()
        raise
    session.read_only = True
    return session


def _login(address: Address, options: str) -> Connection:
    """Set a temporary password of the role and log in with it.

    Another database of the cluster may set a different password in between; the login is then
    retried.
    """
    for _ in range(_LOGIN_ATTEMPTS - 1):
        try:
            return _login_once(address, options)
        except (errors.InvalidPassword, errors.InternalError_):
            continue
    return _login_once(address, options)


def _login_once(address: Address, options: str) -> Connection:
    password = secrets.token_urlsafe(32)
    login = {"user": READER, "password": password}
    # `holder` keeps the lock until the login; `owner` commits the password before it.
    with _connect(address, autocommit=False) as holder, _connect(address) as owner:
        try:
            holder.execute(Lock.READER_LOGIN.statement().encode())
        except errors.UndefinedTable as error:
            raise ConfigurationError(
                "The database is not at the schema of this version.", "Run `chordwise migrate`."
            ) from error
        _set_password(owner, password)
        session = _connect({**address, **login}, options, autocommit=False)
    session.read_only = True
    return session


def _connect(
    address: Address, options: str = "-c statement_timeout=30s", *, autocommit: bool = True
) -> Connection:
    return BoundedConnection.connect(
        make_conninfo("", **address),
        connect_timeout=_CONNECT_SECONDS,
        application_name="chordwise sql",
        options=f"{as_options(VALUE_SETTINGS)} {options}",
        autocommit=autocommit,
    )


def _set_password(owner: Connection, password: str) -> None:
    role = owner.execute("SELECT rolsuper FROM pg_roles WHERE rolname = %s", (READER,)).fetchone()
    if role is None:
        raise ConfigurationError(
            f"The role {READER} is missing.",
            f"An administrator creates it: CREATE ROLE {READER} NOLOGIN; then grant it SELECT.",
        )
    if role[0]:
        raise ConfigurationError(
            f"The role {READER} is a superuser.", f"ALTER ROLE {READER} NOSUPERUSER;"
        )
    reset_reader(owner)
    owner.execute(
        sql.SQL("ALTER ROLE {} LOGIN PASSWORD {} VALID UNTIL {}").format(
            sql.Identifier(READER), verifier(owner, READER, password), password_expiry(owner)
        )
    )


def reset_reader(owner: psycopg.Connection[Row]) -> None:
    """Remove the settings of the reader role, which apply to every session that logs in as it."""
    role = sql.Identifier(READER)
    for (database,) in owner.execute(_DATABASES_WITH_SETTINGS, (READER,)).fetchall():
        where = sql.SQL("IN DATABASE {}").format(sql.Identifier(str(database)))
        owner.execute(
            sql.SQL("ALTER ROLE {} {} RESET ALL").format(role, where if database else sql.SQL(""))
        )


_DATABASES_WITH_SETTINGS = """
SELECT d.datname
FROM pg_db_role_setting AS s
INNER JOIN pg_roles AS r ON r.oid = s.setrole
LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
WHERE r.rolname = %s
"""


def verifier(owner: psycopg.Connection[Row], role: str, password: str) -> str:
    """Return the hash of a password, computed locally so that no statement log contains it."""
    content = password.encode(), role.encode(), b"scram-sha-256"
    return owner.pgconn.encrypt_password(*content).decode()


def password_expiry(owner: psycopg.Connection[Row]) -> str:
    """Return the expiry of a password, ten minutes from now on the server's clock."""
    until = owner.execute("SELECT (now() + interval '10 minutes')::text").fetchone()
    return str(until[0]) if until else ""


def readable_names(connection: Connection) -> list[str]:
    """Return the views and tables that the session may read, tables of answers first."""
    names = [str(row[0]) for row in connection.execute(_READABLE)]
    connection.rollback()
    return names


_READABLE_COLUMNS = """
SELECT
    CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname AS name,
    c.relkind = 'v' AS is_view,
    array_agg(ARRAY[a.attname, format_type(a.atttypid, a.atttypmod)] ORDER BY a.attnum) AS columns
FROM pg_class AS c
INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
INNER JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE n.nspname IN ('public', 'answers') AND c.relkind IN ('r', 'v')
    AND a.attnum > 0 AND NOT a.attisdropped AND has_column_privilege(c.oid, a.attnum, 'SELECT')
GROUP BY n.nspname, c.oid
ORDER BY n.nspname, c.relkind DESC, c.relname
"""


def readable(database_url: SecretStr) -> list[DictRow]:
    """Log in as the reader; return what it may query: tables of answers, views, then tables.

    Each has a `name`, whether it `is_view`, and its `columns` with their types, in order.

    Raises:
        ConfigurationError: The role is missing, or cannot log in.
    """
    with reader(database_url) as connection:
        return rows(connection, _READABLE_COLUMNS)


@contextmanager
def _translating_errors() -> Iterator[None]:
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"The database's role may not switch to {READER}: {_sentence(error)}",
            f"An administrator allows it: GRANT {READER} TO …; or set reader_url.",
        ) from error
    except (errors.InvalidPassword, errors.InvalidAuthorizationSpecification) as error:
        raise ConfigurationError(
            f"The server does not let {READER} log in: {_sentence(error)}",
            "Its pg_hba.conf has to allow this role scram-sha-256.",
        ) from error
    except psycopg.OperationalError as error:
        raise ServiceUnavailableError(
            f"PostgreSQL cannot be reached: {_sentence(error)}", "Run `chordwise doctor`."
        ) from error


@contextmanager
def explaining(readable: Sequence[str] = (), seconds: int = STATEMENT_SECONDS) -> Iterator[None]:
    """Translate PostgreSQL's errors about a statement; `readable` are the names that it may use.

    Raises:
        UsageError: PostgreSQL refuses it, or it takes too long.
    """
    try:
        yield
    except errors.QueryCanceled as error:
        raise UsageError(
            f"The statement took longer than {seconds} seconds.",
            "Narrow it down with WHERE or LIMIT.",
        ) from error
    except _TOO_LARGE as error:
        raise UsageError(
            f"The statement is too large for the server: {_sentence(error)}",
            "Narrow it down with WHERE or LIMIT.",
        ) from error
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        what = f"PostgreSQL rejected the statement: {_sentence(error)}"
        raise UsageError(what, _hint(error, readable)) from error


def similar(name: str, readable: Sequence[str]) -> str:
    """Return a hint with the readable names that are most similar to a name."""
    return f"Similar: {nearest(name, readable)}. {_ALL}"


_ALL = (
    "To list all: SELECT table_schema, table_name FROM information_schema.tables "
    "WHERE table_schema IN ('public', 'answers')"
)
# An unknown table, or one that the reader may not read.
_TABLE = re.compile(r'(?:relation|table|view) "?([^" ]+)')


_NAME = re.compile(r"[\w.]+")
# An unknown column, perhaps after the name of a table.
_COLUMN = re.compile(r'column "?(?:[^" ]+\.)?([^" .]+)')


@contextmanager
def _naming_columns(connection: Connection, statement: str) -> Iterator[None]:
    """Name the similar columns of the tables in a statement if it has an unknown one."""
    try:
        yield
    except errors.UndefinedColumn as error:
        connection.rollback()
        words = {word.rpartition(".")[2] for word in _NAME.findall(statement.lower())}
        tables = rows(connection, _READABLE_COLUMNS)
        used = [table for table in tables if table["name"].rpartition(".")[2] in words]
        match = _COLUMN.search(error.diag.message_primary or "")
        columns = [column for table in used for column, _ in table["columns"]]
        similar_columns = similar_names(match[1], columns) if match else []
        if not similar_columns:
            raise
        what = f"PostgreSQL rejected the statement: {_sentence(error)}"
        raise UsageError(what, f"Similar: {', '.join(similar_columns)}.") from error


def _hint(error: psycopg.Error, readable: Sequence[str]) -> str:
    """Return the hint: similar readable names, if a name is unknown or not permitted."""
    if "multiple commands" in str(error):
        return "Run one statement at a time."
    match = _TABLE.search(error.diag.message_primary or "")
    if isinstance(error, _WHERE_NAMES_HELP) and match and readable:
        return similar(match[1], readable)
    return "docs/sql-cookbook.md has statements to begin with."


def _sentence(error: psycopg.Error) -> str:
    """Return PostgreSQL's message with its hint, on one line; it never contains the password."""
    words = [error.diag.message_primary or str(error), error.diag.message_hint or ""]
    sentence = " ".join(" ".join(words).split())
    return sentence if sentence.endswith((".", "?")) else f"{sentence}."
