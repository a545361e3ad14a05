"""The files of this checkout, as the house tests read them."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("chordwise", "worker", "scheduler")


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return every existing file that git tracks or would add."""
    listing = subprocess.run(
        # The checkout may have another owner, as in a container: it is only listed.
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"],  # noqa: S607 - git from the PATH
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    names = listing.stdout.decode().split("\0")
    return tuple(path for name in sorted(set(names)) if name and (path := ROOT / name).is_file())


@cache
def modules(*folders: str) -> tuple[Path, ...]:
    """Return the Python files below the folders."""
    return tuple(sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py")))
