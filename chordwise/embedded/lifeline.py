"""How a child learns that its supervisor is gone, even when that was killed outright.

The supervisor keeps the writing end of a pipe and never writes; the kernel closes it with the
supervisor, and every reader sees the end of the file.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from chordwise.settings.environment import supervisor_pipe


def watch(on_lost: Callable[[], None]) -> threading.Thread | None:
    """Call `on_lost` once, from another thread, when the supervisor is gone.

    Returns `None` where no supervisor started this process.
    """
    descriptor = supervisor_pipe()
    if descriptor is None:
        return None
    thread = threading.Thread(
        target=_wait, args=(descriptor, on_lost), name="lifeline", daemon=True
    )
    thread.start()
    return thread


def _wait(descriptor: int, on_lost: Callable[[], None]) -> None:
    try:
        while os.read(descriptor, 1):
            continue
    except OSError:
        # Not our pipe after all (an inherited variable): nobody to lose.
        return
    on_lost()
