"""The keys by which sessions show who reads; see `closed_profiles`, which needs SQLAlchemy."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

KEY_SETTING = "chordwise.key"
"""The setting of a session by which the policies of the tables know the reader."""
READING_AS: ContextVar[str | None] = ContextVar("reading_as", default=None)
"""The reader whose rights a request has: `None` for those of the process, empty without a key."""
OPERATOR: Final = ""
"""The name of the key that opens all profiles."""


def key_statement() -> tuple[str, str]:
    """Return the statement, and its parameter, for the key of the reader of a request.

    A process reads with the operator's key, which opens all profiles.
    """
    reader = READING_AS.get()
    if reader is None:
        return "SELECT key FROM reader_keys WHERE name = %s", OPERATOR
    return f"SELECT key FROM reader_keys WHERE name = %s AND name <> '{OPERATOR}'", reader
