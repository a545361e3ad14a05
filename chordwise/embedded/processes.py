"""Child processes in their own sessions: start, identify and stop them."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from signal import Signals
from types import FrameType

import psutil

from chordwise.errors import ServiceUnavailableError
from chordwise.settings.environment import supervisor_pipe


def watch_parent(on_lost: Callable[[], None]) -> None:
    """Call `on_lost` once, from another thread, when the supervisor, if there was one, is gone."""
    descriptor = supervisor_pipe()
    if descriptor is None:
        return

    def wait() -> None:
        try:
            while os.read(descriptor, 1):
                continue
        except OSError:
            return  # the variable was inherited, and the descriptor is not the supervisor's pipe
        on_lost()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


MAX_LOG_BYTES = 10_000_000
_AFTER_KILL_SECONDS = 5.0
# The index of field 22 of `/proc/PID/stat` behind the name, which is the second.
_START_FIELD = 19
_LAST_LOG_LINES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """A process; its `start` distinguishes it from a later one with the same number."""

    pid: int
    start: str


def identify(pid: int) -> ProcessIdentity | None:
    """Return the identity of a running process, or `None` if there is none or it is a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return ProcessIdentity(pid=pid, start=_start(process))
    except (psutil.Error, ValueError, OSError):
        return None


def _start(process: psutil.Process) -> str:
    """Return when a process started, as it stays when the clock is set.

    Linux counts ticks since the boot (proc_pid_stat(5)); elsewhere the kernel keeps the time.
    """
    if not sys.platform.startswith("linux"):
        return str(process.create_time())
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    after_name = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()
    return f"{boot} {int(after_name[_START_FIELD])}"


def own_identity() -> ProcessIdentity:
    """Return the identity of this process."""
    return identify(os.getpid()) or ProcessIdentity(pid=os.getpid(), start="")


def is_alive(identity: ProcessIdentity | None) -> bool:
    """Return whether this process, and no later one with its number, still runs."""
    return identity is not None and identify(identity.pid) == identity


def age_seconds(identity: ProcessIdentity | None) -> float:
    """Return for how long this process has run; infinity if it does not run."""
    if identity is None or not is_alive(identity):
        return math.inf
    try:
        return time.time() - psutil.Process(identity.pid).create_time()
    except psutil.Error:
        return math.inf


def command_of(pid: int) -> list[str]:
    """Return the arguments of a process; empty if it does not exist."""
    try:
        return psutil.Process(pid).cmdline()
    except (psutil.Error, ValueError):
        return []


def find_by_pid_file(pid_file: Path, argument: str) -> ProcessIdentity | None:
    """Return the process that a pid file names, if its command line contains `argument`."""
    try:
        pid = int(pid_file.read_text(encoding="utf-8").split(maxsplit=1)[0])
    except (OSError, ValueError, IndexError):
        return None
    return identify(pid) if argument in command_of(pid) else None


def launch(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    inherited: Sequence[int] = (),
    directory: Path | None = None,
) -> ProcessIdentity | None:
    """Start a child in its own session, its output appended to `log`; `None` if it ended at once.

    `inherited` are descriptors that it keeps; `directory` becomes its folder if it exists.

    Raises:
        ServiceUnavailableError: The program cannot be started.
    """
    rotate(log)
    try:
        with log.open("ab") as output:
            child = subprocess.Popen(  # noqa: S603 - the commands are of our own making
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                cwd=directory if directory is not None and directory.is_dir() else None,
                start_new_session=True,
                pass_fds=tuple(inherited),
            )
    except OSError as error:
        raise ServiceUnavailableError(f"{command[0]} cannot be started: {error}.") from error
    identity = identify(child.pid)
    # Unless this process waits for the child, it stays a zombie.
    threading.Thread(target=child.wait, name=f"reaper-{child.pid}", daemon=True).start()
    return identity


def rotate(log: Path) -> None:
    """Move the end of a log that is too large to `.1`; processes may be appending to it."""
    if not log.exists() or log.stat().st_size <= MAX_LOG_BYTES:
        return
    with log.open("r+b") as file:
        file.seek(-MAX_LOG_BYTES, os.SEEK_END)
        log.with_name(f"{log.name}.1").write_bytes(file.read(MAX_LOG_BYTES))
        file.truncate(0)


def stop(identity: ProcessIdentity | None, *steps: tuple[Signals, float]) -> bool:
    """Send each signal in turn and wait up to its seconds, then SIGKILL; return whether it ran."""
    if identity is None or not is_alive(identity):
        return False
    for number, seconds in (*steps, (Signals.SIGKILL, _AFTER_KILL_SECONDS)):
        send(identity, number)
        if wait_until(lambda: not is_alive(identity), seconds):
            break
    return True


def send(identity: ProcessIdentity, number: Signals) -> None:
    """Send a signal to this process; do nothing if it is gone."""
    if is_alive(identity):
        try:
            os.kill(identity.pid, number)
        except (ProcessLookupError, PermissionError):
            return


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.02) -> bool:
    """Return whether the condition became true in time."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() >= deadline:
            return False
        pause.wait(every)
    return True


@contextmanager
def handle_signals(
    numbers: Sequence[Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handle signals until the block ends; outside the main thread this has no effect."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def repeating(work: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call a function at once and then every `seconds` seconds in a thread until the block ends."""
    stop = threading.Event()

    def repeat() -> None:
        work()
        while not stop.wait(seconds):
            work()

    thread = threading.Thread(target=repeat, name="repeating", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def tail(log: Path, lines: int = 5, after: int = 0) -> str:
    """Return the last lines of a log after an offset in bytes, or of one rotated since."""
    try:
        data = log.read_bytes()
    except OSError:
        return ""
    text = data[after if after <= len(data) else 0 :].decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-lines:])


@dataclass(slots=True, eq=False)
class BackgroundProcess:
    """A process that only has to run; after a request to stop it has `grace_seconds` to end."""

    command: Sequence[str]
    _: KW_ONLY
    log: Path
    environment: Mapping[str, str]
    inherited: Sequence[int]
    grace_seconds: float
    directory: Path | None = None
    _identity: ProcessIdentity | None = field(default=None, init=False)
    _log_begins: int = field(default=0, init=False)

    def start(self) -> None:
        """Start the process, which writes to its log.

        Raises:
            ServiceUnavailableError: The program cannot be started.
        """
        rotate(self.log)
        self._log_begins = self.log.stat().st_size if self.log.exists() else 0
        self._identity = launch(
            self.command,
            log=self.log,
            environment=self.environment,
            inherited=self.inherited,
            directory=self.directory,
        )

    def stop(self) -> bool:
        """Stop the process, and kill it after its grace period; return whether it ran."""
        return stop(self._identity, (Signals.SIGTERM, self.grace_seconds))

    def identity(self) -> ProcessIdentity | None:
        """Return the process while it runs."""
        return self._identity if is_alive(self._identity) else None

    def last_log_lines(self) -> str:
        """Return the last lines that it has logged since it was started."""
        return tail(self.log, _LAST_LOG_LINES, self._log_begins)
