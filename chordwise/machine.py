"""What this process may use of its machine: cores and memory, within its control groups."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

MEGABYTE = 1024 * 1024
_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_SCORE = Path("/proc/self/oom_score_adj")


def usable_cores() -> int:
    """Return the cores of the machine, within the process's affinity and its groups' quotas."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    usable = [cores or 1]
    for folder in _group_folders("cpu"):
        names = "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"
        newer, *older = (_text(folder / name) for name in names)
        for limit in (newer.split(), older):
            # The quota is `max` or -1 without a limit.
            quota, period = [*limit, "", ""][:2]
            if quota.isdecimal() and period.isdecimal() and int(period):
                usable.append(int(quota) // int(period))
    return max(1, min(usable))


def memory_megabytes() -> int:
    """Return the memory that this process may use: that of its container, or of the machine."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _group_folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _text(folder / name)
            available = min(available, int(limit)) if limit.isdecimal() else available
    return available // MEGABYTE


def set_oom_score(score: int) -> None:
    """Let Linux end this process before those with a lower score; the highest is 1,000.

    Any process may raise its own score; children inherit it.
    """
    with contextlib.suppress(OSError):
        _SCORE.write_text(f"{score}\n", "ascii")


def _group_folders(controller: str) -> Iterator[Path]:
    """Yield the folders of the groups of this process with a controller, each up to the root.

    In version 2, the groups of all controllers are the same. In version 1, a container sees its
    group as the root, and the path in the list is that of the host.
    """
    for line in _text(_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            mount = _MOUNT / controller if controllers else _MOUNT
            group = Path(path.lstrip("/"))
            yield from (mount / level for level in (group, *group.parents))


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
