"""The files and folders in CHORDWISE_HOME."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shlex
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ValidationError

from chordwise.embedded import processes
from chordwise.embedded.processes import ProcessIdentity
from chordwise.errors import ConfigurationError, ServiceUnavailableError

# The address of a Unix socket holds 104 bytes on macOS and 108 on Linux, the final NUL included.
MAX_SOCKET_PATH_BYTES = 100
_LONGEST_SOCKET_NAME = ".s.PGSQL.5432"
CONTROL_SOCKET = "control"


class Home:
    """The folder of one embedded stack, and the paths in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.postgres = path / "postgres"
        self.valkey = path / "valkey"
        self.logs = path / "logs"
        # The token of the pages, the key of their sessions, and uploaded files.
        self.web = path / "web"
        # Files that describe the running stack; meaningless after it has stopped.
        self.run = path / "run"
        self.state_file = self.run / "stack.json"
        self.lock_file = self.run / "stack.lock"  # locked by the supervisor while it runs
        # Its modification time is the last time that a command needed the stack.
        self.last_used_file = self.run / "last_used"
        self.web_link_file = self.run / "web.json"  # see `read_address`

    def log(self, name: str) -> Path:
        """Return the log of a process."""
        return self.logs / f"{name}.log"

    def touch(self) -> None:
        """Record that a command needs the stack now."""
        self.last_used_file.touch(mode=0o600)

    def unused_seconds(self) -> float:
        """Return the seconds since a command last needed the stack; 0 if that is unknown."""
        try:
            return max(0.0, time.time() - self.last_used_file.stat().st_mtime)
        except OSError:
            return 0.0

    def prepare(self) -> None:
        """Create the folders that are missing, each with mode 0700.

        Raises:
            ConfigurationError: The home cannot be created or written to, or others can write to it.
        """
        for folder in (self.path, self.logs, self.run):
            make_folder(folder)
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"The folder {self.path} is not writable.",
                "Set CHORDWISE_HOME to a folder of your own.",
            )
        # A user who owns the folder or can write to it could replace its files.
        state = self.path.stat()
        if state.st_uid != os.geteuid():
            raise ConfigurationError(
                f"The folder {self.path} belongs to another user.",
                "Set CHORDWISE_HOME to a folder of your own, or change its owner.",
            )
        if stat.S_IMODE(state.st_mode) & 0o022:
            raise ConfigurationError(
                f"Other users can write to the folder {self.path}.",
                f"Run `chmod go-w {shlex.quote(str(self.path))}`, or change CHORDWISE_HOME.",
            )

    def sockets(self) -> Path:
        """Return the folder for sockets: `run`, or one below the temporary folder.

        Raises:
            ConfigurationError: That folder belongs to another user, others can read it, or its
                path is too long for a socket.
        """
        if fits_socket(self.run):
            return self.run
        digest = hashlib.sha256(bytes(self.path)).hexdigest()[:16]
        name = f"chordwise-{os.geteuid()}-{digest}"
        # Created with mode 0700, and rejected if another user created it: a public place is safe.
        places = (Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108 - see above
        folder = next((place / name for place in places if fits_socket(place / name)), None)
        if folder is None:
            raise ConfigurationError(
                f"The path of the temporary folder {places[0]} is too long for a socket.",
                "Set CHORDWISE_HOME or TMPDIR to a shorter path.",
            )
        state = make_folder(folder).lstat()
        is_ours = stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()
        if not is_ours or stat.S_IMODE(state.st_mode) & 0o077:
            raise ConfigurationError(
                f"The folder {folder} belongs to another user or is open to others.",
                "Remove it, or set TMPDIR to a folder of your own.",
            )
        return folder

    def discard_sockets(self) -> None:
        """Remove the control socket, and its folder if that is not `run` and is no longer used."""
        folder = self.sockets()
        (folder / CONTROL_SOCKET).unlink(missing_ok=True)
        if folder != self.run:
            with contextlib.suppress(OSError):
                folder.rmdir()


def fits_socket(folder: Path) -> bool:
    """Return whether sockets in the folder have an address that all clients can express."""
    path = folder / _LONGEST_SOCKET_NAME
    # PostgreSQL's client library reads a comma as the end of one host and the start of the next.
    return len(bytes(path)) < MAX_SOCKET_PATH_BYTES and "," not in str(path)


def home_at(path: Path) -> Home:
    """Return the home at a path, made absolute so that all processes refer to the same one."""
    return Home(path.expanduser().resolve())


_DYING_SECONDS = 5.0


def lock_holder(home: Home) -> ProcessIdentity | None:
    """Return the living process that holds the lock."""
    try:
        entry = json.loads(home.lock_file.read_text(encoding="utf-8"))
        identity = ProcessIdentity(pid=int(entry["pid"]), start=str(entry["start"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return identity if processes.is_alive(identity) else None


@contextmanager
def locked(home: Home) -> Iterator[None]:
    """Hold the lock of a home; the kernel releases it even if this process is killed.

    Raises:
        ServiceUnavailableError: Another process holds it.
    """
    descriptor = os.open(home.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # A killed process with threads leaves the process list a moment before its files close.
        processes.wait_until(
            lambda: _has_locked(descriptor) or lock_holder(home) is not None, _DYING_SECONDS
        )
        if not _has_locked(descriptor):
            holder = lock_holder(home)
            where = f" in process {holder.pid}" if holder else ""
            what = f"The stack of {home.path} is already running{where}."
            raise ServiceUnavailableError(what, "Stop it with: chordwise down")
        os.truncate(descriptor, 0)
        os.write(descriptor, json.dumps(asdict(processes.own_identity())).encode())
        yield
        os.truncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _has_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


_PASSWORD_BYTES = 24


def make_folder(folder: Path) -> Path:
    """Create a folder with mode 0700; an existing one is left unchanged.

    Raises:
        ConfigurationError: The folder cannot be created.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The folder {folder} cannot be created: {error.strerror}.",
            "Set CHORDWISE_HOME to a writable folder.",
        ) from error
    return folder


def write_private(path: Path, text: str) -> None:
    """Replace a file of mode 0600 atomically: readers see the old or the new content."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


def password_in(path: Path) -> str:
    """Return the password in a file; the first call generates it."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(_PASSWORD_BYTES))
    return path.read_text(encoding="utf-8").strip()


class Level(StrEnum):
    """How much of the stack runs: only the database, or everything that works on jobs."""

    DATABASE = "database"
    ALL = "all"


class StackPhase(StrEnum):
    """The phase of a stack's life."""

    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"


class StackState(BaseModel, frozen=True):
    """A snapshot of the stack; the addresses, with passwords, are null for external services.

    `in_foreground` is true for the stack of `chordwise up`, which does not stop when it is idle.
    """

    supervisor: ProcessIdentity
    children: dict[str, ProcessIdentity] = {}
    in_foreground: bool = False
    phase: StackPhase = StackPhase.STARTING
    level: Level = Level.DATABASE
    fingerprint: str = ""
    autostart_fingerprint: str = ""
    control_socket: Path = Path()
    database_url: str | None = None
    broker_url: str | None = None


def write_state(home: Home, state: StackState) -> None:
    """Replace the snapshot."""
    write_private(home.state_file, state.model_dump_json(indent=1))


def last_state(home: Home) -> StackState | None:
    """Return the last snapshot, even if its supervisor is gone."""
    try:
        return StackState.model_validate_json(home.state_file.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


class ServerAddress(BaseModel, frozen=True):
    """The address that a running server reports; that of the pages may contain a token."""

    url: str
    server: ProcessIdentity


def read_address(path: Path) -> ServerAddress | None:
    """Return the address of a running server, or `None` if it is gone."""
    try:
        address = ServerAddress.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return address if processes.is_alive(address.server) else None


def current_state(home: Home) -> StackState | None:
    """Return the snapshot of the stack that runs now."""
    state = last_state(home)
    holder = lock_holder(home)
    if state is None or holder is None or holder.pid != state.supervisor.pid:
        return None
    return state
