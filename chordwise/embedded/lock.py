"""One supervisor per home: the lock, and who holds it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from chordwise.embedded import processes
from chordwise.embedded.home import Home
from chordwise.embedded.processes import ProcessIdentity
from chordwise.errors import ServiceUnavailableError

_DYING_SECONDS = 5.0


def holder(home: Home) -> ProcessIdentity | None:
    """Return the living process that holds the lock."""
    try:
        entry = json.loads(home.lock_file.read_text(encoding="utf-8"))
        identity = ProcessIdentity(pid=int(entry["pid"]), created_at=float(entry["created_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return identity if processes.is_alive(identity) else None


@contextmanager
def held(home: Home) -> Iterator[None]:
    """Hold the lock of a home; the kernel frees it even when we are killed.

    Raises:
        ServiceUnavailableError: Another process holds it.
    """
    descriptor = os.open(home.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, home)
        own = processes.identify(os.getpid())
        entry = {"pid": os.getpid(), "created_at": own.created_at if own else 0.0}
        os.truncate(descriptor, 0)
        os.write(descriptor, json.dumps(entry).encode())
        yield
        os.truncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, home: Home) -> None:
    # A killed process of several threads is dead to everybody a moment before its files close.
    processes.wait_until(
        lambda: _has_locked(descriptor) or holder(home) is not None, _DYING_SECONDS
    )
    if not _has_locked(descriptor):
        found = holder(home)
        where = f" in process {found.pid}" if found else ""
        raise ServiceUnavailableError(
            f"The stack of {home.path} is up already{where}.", "Stop it with: chordwise down"
        )


def _has_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
