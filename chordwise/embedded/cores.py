"""How many processor cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Return the cores of the machine, within the process's affinity and its cgroup's quota."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = [int(quota) for quota in _quotas(cgroups, membership)]
    return max(1, min([found or 1, *quotas]))


def _quotas(cgroups: Path, membership: Path) -> list[float]:
    """Return the cores that each group of the process may use, where it has a limit."""
    groups = [Path(), *_groups(membership)]
    files = [cgroups / group / "cpu.max" for group in groups]
    old = cgroups / "cpu"
    found = [_quotient(_text(file).split()) for file in files]
    found.append(_quotient([_text(old / f"cpu.cfs_{name}_us") for name in ("quota", "period")]))
    return [quota for quota in found if quota is not None]


def _groups(membership: Path) -> list[Path]:
    """Return the process's group of the unified hierarchy and those above it."""
    lines = _text(membership).splitlines()
    own = [Path(line.removeprefix("0::/")) for line in lines if line.startswith("0::/")]
    return [each for group in own for each in (group, *group.parents)]


def _quotient(values: list[str]) -> float | None:
    """Return quota / period; `None` for `max`, for -1, and where nothing is known."""
    try:
        quota, period = (int(value) for value in values)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
