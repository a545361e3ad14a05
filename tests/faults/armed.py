"""`python -m tests.faults.armed worker|scheduler`: a process of Chordwise with failpoints.

The setting `CHORDWISE_FAILPOINTS` names them: `chunk.claimed:kill:3; synthesis.result_saved:kill`.
Two more entries apply to the whole process: `clock:+7200` shifts its wall clock by seconds, and
`files:64` limits its file descriptors.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import cast

VARIABLE = "CHORDWISE_FAILPOINTS"
ROLES = ("worker", "scheduler")
CONFIGURATION_EXIT_CODE = 78


def main() -> int:
    """Arm the process and run it; return its exit code, or 78 if arming fails."""
    role, *rest = sys.argv[1:] or ["nothing"]
    # Before any import of Chordwise, which may keep a reference to the clock.
    text = _change_process(os.environ.get(VARIABLE, ""))  # noqa: TID251 - the only place that reads it
    points = importlib.import_module("tests.faults.points")
    if role not in ROLES:
        sys.stderr.write(f"“{role}” cannot be armed: {' or '.join(ROLES)}.\n")
        return CONFIGURATION_EXIT_CODE
    process = importlib.import_module(f"{role}.process")
    try:
        points.arm(text)
    except (points.UnknownPointError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return CONFIGURATION_EXIT_CODE
    sys.argv = [role, *rest]
    return cast("Callable[[], int]", process.main)()


def _change_process(text: str) -> str:
    """Apply the entries for the whole process; return the others."""
    others = []
    for entry in (part.strip() for part in text.split(";")):
        name, _, value = entry.partition(":")
        if name == "clock":
            _shift_clock(float(value))
        elif name == "files":
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(value), int(value)))
        else:
            others.append(entry)
    return ";".join(others)


def _shift_clock(seconds: float) -> None:
    true_time, true_time_ns = time.time, time.time_ns
    time.time = lambda: true_time() + seconds
    time.time_ns = lambda: true_time_ns() + int(seconds * 1e9)


if __name__ == "__main__":
    sys.exit(main())
