"""The services that a command needs, and the socket on which it sends them to the supervisor."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, SecretStr, ValidationError

from chordwise.embedded import llama
from chordwise.embedded.home import CONTROL_SOCKET, Home, Level, StackPhase, StackState, home_at
from chordwise.errors import ConfigurationError
from chordwise.settings import Settings
from chordwise.settings.environment import child_environment

# -P: the user's current folder must not shadow a module of the same name.
_PYTHON = (sys.executable, "-P", "-m")


class Commands(BaseModel, frozen=True):
    """Chordwise's own programs of the stack."""

    migrate: tuple[str, ...] = (*_PYTHON, "chordwise", "migrate")
    worker: tuple[str, ...] = (*_PYTHON, "worker")
    scheduler: tuple[str, ...] = (*_PYTHON, "scheduler")
    web: tuple[str, ...] = (*_PYTHON, "chordwise", "web")


class StackPlan(BaseModel, frozen=True, hide_input_in_errors=True):
    """The services and processes to run, with their environment; contains secrets.

    A `database_url` or `broker_url` of `None` requests embedded services. `stays` is true for a
    stack that watches folders, which does not stop when it is idle. Relative paths in the settings
    are resolved against `directory`. `autostart_fingerprint` is a hash of the watched folders and
    schedules.
    """

    level: Level
    fingerprint: str
    settings_file: Path | None = None
    autostart_fingerprint: str = ""
    environment: dict[str, str]
    directory: Path
    database_url: str | None
    broker_url: str | None
    local_models: tuple[llama.LocalModel, ...] = ()
    worker_concurrency: int | None = None
    commands: Commands = Commands()
    stays: bool = False
    serves_pages: bool = False
    idle_seconds: float
    grace_seconds: float

    def is_met_by(self, state: StackState) -> bool:
        """Return whether a running stack fulfills this plan."""
        if state.phase is not StackPhase.READY:
            return False
        if self.database_url is None and state.database_url is None:
            return False
        if self.level is Level.DATABASE:
            return True
        return state.level is Level.ALL and state.fingerprint == self.fingerprint

    def conflicts_with(self, running: StackPlan) -> bool:
        """Return whether applying this plan would disable inboxes or schedules of the running one.

        A command with a changed settings file, or one that watches the same folders, may replace
        the plan.
        """
        if running.autostart_fingerprint in {"", self.autostart_fingerprint}:
            return False
        return self.settings_file is None or self.settings_file != running.settings_file


def plan_for(
    settings: Settings,
    level: Level,
    *,
    config: Path | None = None,
    commands: Commands | None = None,
) -> StackPlan:
    """Return the plan for these settings at a level.

    Raises:
        ConfigurationError: The file of a local model is missing, or the library that serves it.
    """
    wants_models = level is Level.ALL
    file = type(settings).toml_file
    home = {"CHORDWISE_HOME": str(home_at(settings.home).path)}
    return StackPlan(
        level=level,
        fingerprint=fingerprint(settings),
        settings_file=file.resolve() if file else None,
        autostart_fingerprint=autostart_fingerprint(settings),
        environment=child_environment(settings.home, config) | home | python_path(),
        directory=Path.cwd(),
        database_url=_revealed(settings.database_url),
        broker_url=_revealed(settings.broker_url),
        local_models=llama.local_models(settings) if wants_models else (),
        worker_concurrency=llama.worker_concurrency(settings) if wants_models else None,
        commands=commands or Commands(),
        stays=level is Level.ALL and settings.inbox.is_watched,
        idle_seconds=settings.embedded.idle_minutes * 60,
        grace_seconds=settings.worker.shutdown_grace_seconds + 10,
    )


def fingerprint(settings: Settings) -> str:
    """Return a hash of all settings, keys included, that can affect a worker."""
    keys = {name: settings.api_key_for(model) for name, model in settings.models.items()}
    return _hash({**settings.model_dump(exclude={"home", "embedded", "web"}), "keys": keys})


def autostart_fingerprint(settings: Settings) -> str:
    """Return a hash of the watched folders and the schedules; empty if there are none."""
    if not settings.inbox.is_watched and not settings.schedules:
        return ""
    values = settings.model_dump(include={"inbox", "profiles", "schedules"})
    return _hash({**values, "folder": settings.base_folder})


def _hash(values: dict[str, object]) -> str:
    text = json.dumps(values, default=lambda value: _revealed(value) or str(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _revealed(value: object) -> str | None:
    return value.get_secret_value() if isinstance(value, SecretStr) else None


def python_path() -> dict[str, str]:
    """Return the environment with which a child finds this package if it is not installed."""
    root = str(Path(__file__).resolve().parents[2])
    if root in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        return {}
    return {"PYTHONPATH": root}


# More than the kernel accepts as the environment of a process.
_MAX_REQUEST_BYTES = 8_000_000
# How long a command may take to send its request, or to read a message.
_CLIENT_SECONDS = 1.0
_TICK_SECONDS = 0.1


class Message(BaseModel, frozen=True):
    """A line from the supervisor; the last has the `state` of the stack, or `code` and `what`."""

    activity: str = ""
    state: StackState | None = None
    code: str = ""
    what: str = ""
    hint: str = ""


_NOT_UNDERSTOOD = Message(
    code=ConfigurationError.code,
    what="The running stack does not understand the request.",
    hint="It may be another version of Chordwise. Stop it with: chordwise down",
)


def request(path: Path, plan: StackPlan, deadline: float) -> Iterator[Message]:
    """Send a plan and yield the supervisor's messages; there are none if no supervisor listens."""
    with (
        suppress(OSError, ValidationError),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
    ):
        _limit(connection, deadline)
        connection.connect(str(path))
        connection.sendall(_line(plan))
        with connection.makefile("rb") as lines:
            for line in lines:
                yield Message.model_validate_json(line)
                _limit(connection, deadline)


def listen(home: Home) -> socket.socket:
    """Return a listening socket in the home, which only processes of this user can connect to.

    Raises:
        ConfigurationError: The file system has no sockets.
    """
    path = home.sockets() / CONTROL_SOCKET
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.settimeout(_TICK_SECONDS)
    try:
        listener.bind(str(path))
        path.chmod(0o600)  # before listening
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"The socket {path} cannot be created: {error.strerror}.",
            "Set CHORDWISE_HOME to a folder on a local disk.",
        ) from error
    return listener


def next_request(listener: socket.socket) -> tuple[StackPlan, socket.socket] | None:
    """Return the plan of the next request and its connection, or `None` if there is none now.

    A request is withdrawn if the command has closed the connection within a second.
    """
    try:
        connection, _ = listener.accept()
    except OSError:
        return None
    line = _read_line(connection)
    if line and send(connection, Message()):
        try:
            return StackPlan.model_validate_json(line), connection
        except ValidationError:
            send(connection, _NOT_UNDERSTOOD)
    connection.close()
    return None


def send(connection: socket.socket, message: Message) -> bool:
    """Send a message; return whether the command is still connected and reads it."""
    try:
        connection.settimeout(_CLIENT_SECONDS)
        connection.sendall(_line(message))
    except OSError:
        return False
    return True


def _read_line(connection: socket.socket) -> bytes:
    deadline = time.monotonic() + _CLIENT_SECONDS
    line = bytearray()
    with suppress(OSError):
        while not line.endswith(b"\n") and len(line) < _MAX_REQUEST_BYTES:
            _limit(connection, deadline)
            line += connection.recv(65_536) or b"\n"
    return bytes(line) if line.endswith(b"\n") else b""


def _line(content: BaseModel) -> bytes:
    return content.model_dump_json().encode() + b"\n"


def _limit(connection: socket.socket, deadline: float) -> None:
    connection.settimeout(max(0.0, deadline - time.monotonic()))
