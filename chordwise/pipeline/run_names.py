"""The names of runs, by which people find them again."""

from __future__ import annotations

import uuid

from chordwise.errors import UsageError

MAX_NAME_LENGTH = 200


def check_name(name: str) -> None:
    """Refuse names that `RUN` on the command line could not tell from something else.

    Raises:
        UsageError: It cannot be used.
    """
    try:
        uuid.UUID(name)
    except ValueError:
        pass
    else:
        raise UsageError("A run's name must not look like an id.", "Choose another --run-name.")
    fits = len(name) <= MAX_NAME_LENGTH and name.isprintable() and name.strip()
    if name == "latest" or not fits:
        raise UsageError(
            "The run's name cannot be used.",
            f"Up to {MAX_NAME_LENGTH} printable characters, and not “latest”.",
        )
