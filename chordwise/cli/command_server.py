"""A process of the stack that keeps the commands loaded and runs each in a fork of itself.

Loading SQLAlchemy and the tables takes over a second of CPU time, a fork a few milliseconds. The
fork takes over the arguments, environment, folder, files and limits of the client, which is the
process that the user started. Linux only: system libraries of other platforms do not survive a
fork.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import resource
import signal
import socket
import struct
import sys
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path
from select import select
from types import FrameType
from typing import TextIO, TypedDict

SERVED = frozenset({
    "analyze", "cancel", "certify", "connect", "continue", "evaluate", "experiment", "explain",
    "export", "feedback", "inbox", "insight", "prompts", "quote", "refresh", "results",
    "runs", "schedules", "sql", "submit", "tables", "wait",
})  # fmt: skip
"""The commands that run in a fork: they use the database and need no terminal."""
_SOCKET_PREFIX = "cmd-"
_PRELOADED = (
    "celery.worker.worker",
    "chordwise.rendering.screen",
    "chordwise.pipeline.runtime.startup",
    "chordwise.storage.readiness",
    "chordwise.telemetry.logging",
    "sqlalchemy.dialects.postgresql.psycopg",
)
# Leave the CPU to the first command of a stack.
_DELAY_SECONDS = 5.0
# The client runs the command itself if it gets no fork within this time.
_ANSWER_SECONDS = 1.0
_LENGTH_BYTES = 4
_CREDENTIALS = struct.Struct("3i")
_READY, _BEGIN = b"r", b"b"
_FILES = (0, 1, 2)
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NAMESPACES = ("mnt", "net", "pid", "user")
_RIGHTS = ("Gid:", "Groups:", "CapEff:", "NoNewPrivs:", "Seccomp:")
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_COMPLETION = "_CHORDWISE_COMPLETE"
_BROKEN_OUTPUT = 120


class _State(TypedDict):
    """The state that a fork takes over from its client."""

    arguments: list[str]
    environment: dict[str, str]
    directory: str
    umask: int
    limits: list[tuple[int, tuple[int, int]]]
    ignored: list[int]
    streams: list[tuple[str, str, bool, bool]]
    confinement: list[str]


def run(arguments: list[str]) -> int | None:
    """Run a command in the command server of the home and return its exit code.

    Returns `None`, without any effect, if no server of this user and this code can run it.
    """
    is_served = arguments and arguments[0] in SERVED and _COMPLETION not in os.environ  # noqa: TID251 - see `_home`
    if sys.platform != "linux" or not is_served:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(str(_address(_home(arguments))))
            if _user_of(connection) != os.geteuid():
                return None
            body = json.dumps(_process_state()).encode()
            connection.sendall(len(body).to_bytes(_LENGTH_BYTES) + body)
            if connection.recv(1) != _READY:
                return None
            # Only now: a server that hangs would keep the files open.
            socket.send_fds(connection, [_BEGIN], _FILES)
        except (OSError, ValueError):
            return None
        return _follow(connection)


def _follow(connection: socket.socket) -> int:
    """Forward signals to the fork and return its exit code."""
    sent: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        sent.append(number)
        with suppress(OSError):
            connection.send(bytes([number]))

    for number in _FORWARDED:  # ignored ones too: a command may install a handler of its own
        signal.signal(number, forward)
    code = b""
    with suppress(OSError):
        connection.settimeout(None)
        code = connection.recv(1)
    if code:
        return code[0]
    for last in sent[-1:]:  # the signal ended the fork: end in the same way
        signal.signal(last, signal.SIG_DFL)
        os.kill(os.getpid(), last)
    sys.stderr.write("Error: the process that ran the command was killed. Run it again.\n")
    return 1


def _process_state() -> _State:
    """Return the state of this process."""
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "arguments": sys.argv,
        "environment": dict(os.environ),  # noqa: TID251 - passed on unchanged
        "directory": os.getcwd(),  # noqa: PTH109 - serialized as JSON
        "umask": umask,
        "limits": [(each, resource.getrlimit(each)) for each in _LIMITS],
        "ignored": [each for each in _FORWARDED if signal.getsignal(each) is signal.SIG_IGN],
        "streams": [
            (each.encoding, each.errors or "strict", each.line_buffering, each.write_through)
            for each in (sys.stdin, sys.stdout, sys.stderr)
            if isinstance(each, io.TextIOWrapper)
        ],
        "confinement": _confinement(),
    }


def _home(arguments: list[str]) -> Path:
    """Return the home whose server to use, from an option, a variable, or the default.

    The fork determines the home of its command again, so any server gives the same result.
    """
    for index, argument in enumerate(arguments):
        if argument.startswith("--home="):
            return Path(argument.partition("=")[2]).expanduser()
        if argument == "--home" and arguments[index + 1 :]:
            return Path(arguments[index + 1]).expanduser()
    variables = os.environ  # noqa: TID251 - the settings take longer to load than a fork to start
    if home := variables.get("CHORDWISE_HOME"):
        return Path(home).expanduser()
    data = variables.get("XDG_DATA_HOME", "").strip() or "~/.local/share"
    return Path(data).expanduser() / "chordwise"


def _address(home: Path) -> Path:
    """Return the socket of a server with the same code as this process."""
    package = Path(__file__).resolve().parents[1]
    folders = (folder for folder, _, _ in os.walk(package))
    files = (file for folder in folders for file in os.scandir(folder) if file.name[-3:] == ".py")
    newest = max(file.stat().st_mtime_ns for file in files)
    code = zlib.crc32(f"{sys.prefix} {sys.version} {package} {newest}".encode())
    return home.resolve() / "run" / f"{_SOCKET_PREFIX}{code:08x}"


def _confinement() -> list[str]:
    """Return what distinguishes processes of a user in different containers or sandboxes."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:  # noqa: PTH123 - no file
        rights = [line for line in status if line.startswith(_RIGHTS)]
    links = (f"ns/{name}" for name in _NAMESPACES)
    return [*rights, *(os.readlink(f"/proc/self/{link}") for link in (*links, "root"))]  # noqa: PTH115 - no file


def _user_of(connection: socket.socket) -> int:
    """Return the user id of the peer process."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[1])


def serve(home: Path) -> None:
    """Load the commands and serve them until the supervisor exits; returns only in forks."""
    threading.Event().wait(_DELAY_SECONDS)
    from chordwise.settings.environment import supervisor_pipe  # noqa: PLC0415 - after the delay

    fork = _Fork()
    atexit.register(fork.end)  # registered first, so that it is called last
    _preload()
    address, pipe = _address(home), supervisor_pipe()
    for left in address.parent.glob(f"{_SOCKET_PREFIX}*"):
        left.unlink(missing_ok=True)

    def leave(*_: object) -> None:
        address.unlink(missing_ok=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGCHLD, _reap)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(address))
        address.chmod(0o600)  # before listening
        listener.listen()
        watched = [listener.fileno(), *([pipe] if pipe is not None else [])]
        while select(watched, [], [])[0] == [listener.fileno()]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                fork.run(connection)
                return
            connection.close()
    leave()


def _preload() -> None:
    """Import the modules of the served commands, while there is only one thread."""
    from chordwise.cli.application import MODULES  # noqa: PLC0415 - not in the client
    from chordwise.lazy import load  # noqa: PLC0415 - as above

    for module in sorted({f"chordwise.cli.{MODULES[name]}" for name in SERVED & MODULES.keys()}):
        load(module)
    for module in _PRELOADED:
        load(module)


def _reap(_number: int, _frame: FrameType | None) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


class _Fork:
    """A fork of the server, which runs the command of one client.

    It sends an exit code only if the command has ended: a client that receives none
    reports that the command was killed.
    """

    def __init__(self) -> None:
        self._connection: socket.socket | None = None
        self._code: int | None = None
        self._is_over = threading.Event()

    def run(self, connection: socket.socket) -> None:
        """Take over the state of the client and run its command."""
        self._connection = connection
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        try:
            if _user_of(connection) != os.geteuid() or not _adopt_state(connection):
                return
        except (OSError, ValueError):
            return  # the client runs the command itself
        from chordwise.cli import application  # noqa: PLC0415 - not in the client

        threading.Thread(target=self._forward_signals, args=(connection,), daemon=True).start()
        application.escape_output()
        self._code = application.run(sys.argv[1:])

    def end(self) -> None:
        """Send the exit code and exit at once, as a regular shutdown of the interpreter is slow."""
        if self._connection is None:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            self._code = _BROKEN_OUTPUT
        self._is_over.set()
        if self._code is not None:
            with suppress(OSError):
                self._connection.sendall(bytes([self._code & 0xFF]))
        os._exit(0)

    def _forward_signals(self, connection: socket.socket) -> None:
        """Deliver the signals that the client forwards, and exit when the client exits."""
        main = threading.main_thread().ident or 0
        with suppress(OSError):
            while number := connection.recv(1):
                signal.pthread_kill(main, number[0])
        if not self._is_over.is_set():
            os.kill(os.getpid(), signal.SIGKILL)


def _adopt_state(connection: socket.socket) -> bool:
    """Take over the state of the client; return whether the client lets this process start.

    Raises:
        OSError, ValueError: The state cannot be taken over.
    """
    connection.settimeout(_ANSWER_SECONDS)
    with connection.makefile("rb") as received:
        length = int.from_bytes(received.read(_LENGTH_BYTES))
        state: _State = json.loads(received.read(length))
    if state["confinement"] != _confinement() or len(state["streams"]) != len(_FILES):
        return False
    for limit, values in state["limits"]:
        resource.setrlimit(limit, values)
    os.chdir(state["directory"])
    os.umask(state["umask"])
    os.environ.clear()  # noqa: TID251 - replaced as a whole
    os.environ.update(state["environment"])  # noqa: TID251 - as above
    time.tzset()
    for each in _FORWARDED:
        usual = signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL
        signal.signal(each, signal.SIG_IGN if each in state["ignored"] else usual)
    connection.settimeout(None)  # the client now sends `_BEGIN` or closes the connection
    connection.sendall(_READY)
    begin, files, _, _ = socket.recv_fds(connection, 1, len(_FILES))
    if begin != _BEGIN:
        return False
    for number, file in zip(_FILES, files, strict=True):
        os.dup2(file, number)
        os.close(file)
    sys.argv = state["arguments"]
    sys.stdin, sys.stdout, sys.stderr = map(_opened, _FILES, state["streams"])
    return True


def _opened(number: int, properties: tuple[str, str, bool, bool]) -> TextIO:
    """Open a standard stream as in the client."""
    encoding, errors, by_line, unbuffered = properties
    raw = io.FileIO(number, "w" if number else "r", closefd=False)
    buffer = io.BufferedWriter(raw) if number else io.BufferedReader(raw)
    return io.TextIOWrapper(
        buffer, encoding, errors, line_buffering=by_line, write_through=unbuffered
    )


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
