"""The limits on files, and of the operating system on the process that parses them."""

from __future__ import annotations

import contextlib
import math
import resource
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chordwise import machine
from chordwise.machine import MEGABYTE
from chordwise.readers import failures

if TYPE_CHECKING:
    from chordwise.settings import ReaderSettings

BYTES_PER_CHARACTER = 4
"""The maximum in UTF-8, UTF-16 and UTF-32."""
_OPEN_FILES = 64
# The exit status of a process without enough memory for an answer.
OUT_OF_MEMORY_STATUS = 77
_STATUS = Path("/proc/self/statm")
_FIRST_TO_END = 1_000
# The parent should time out first, as its error message is better.
_GRACE_SECONDS = 2.0


def limit_process(memory_megabytes: int) -> None:
    """Limit the additional memory of the process, and forbid core dumps and writing files.

    If memory runs out nevertheless, the kernel ends this process before all others. Not every
    system enforces every limit (macOS has no limit on the address space).
    """
    try:
        used = int(_STATUS.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        used = 512 * MEGABYTE
    address_space = used + memory_megabytes * MEGABYTE
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_AS, address_space),
    ):
        _, hard = resource.getrlimit(limit)
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (bounded, bounded))
    machine.set_oom_score(_FIRST_TO_END)


def limit_file(timeout_seconds: float) -> None:
    """Let the kernel end the process if this file takes longer, even without its parent."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout_seconds + _GRACE_SECONDS)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime + timeout_seconds + _GRACE_SECONDS)
    # Only the soft limit, since the next file gets a new limit.
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, hard))


def release_file() -> None:
    """Stop the timer between files, when the process may wait."""
    signal.setitimer(signal.ITIMER_REAL, 0)


RESERVED_MEGABYTES = 420
"""The memory of the three processes of a scheduler and their parsers before they read a file."""
READERS = 3
"""The number of files a scheduler reads at once: one fast, one slow, and one of a schedule."""
_MIN_MEGABYTES = 48
_MAX_MEMORY_MEGABYTES = 1_024
_MAX_FILE_MEGABYTES = 256
# Storing a text takes several copies: as bytes, as characters, and in the driver.
_TEXT_SHARE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """The limits on one file: those of the settings, or those that suit the available memory."""

    memory_megabytes: int
    max_file_megabytes: int
    max_text_bytes: int


def file_limits(settings: ReaderSettings, available_megabytes: int | None = None) -> FileLimits:
    """Return the limits; unset ones are derived from the memory of this process, or that given."""
    available = (available_megabytes or machine.memory_megabytes()) - RESERVED_MEGABYTES
    share = max(_MIN_MEGABYTES, min(_MAX_MEMORY_MEGABYTES, available // READERS))
    text_bytes = share * MEGABYTE // _TEXT_SHARE
    return FileLimits(
        memory_megabytes=settings.memory_megabytes or share,
        max_file_megabytes=settings.max_file_megabytes or min(_MAX_FILE_MEGABYTES, share),
        max_text_bytes=min(text_bytes, settings.max_characters * BYTES_PER_CHARACTER),
    )


class CharacterAllowance:
    """The characters of one document, counted against a limit."""

    def __init__(self, max_characters: int) -> None:
        self.spent = 0
        self._limit = max_characters

    def __call__(self, characters: int) -> None:
        """Count characters.

        Raises:
            ReadError: The limit is exceeded.
        """
        self.spent += characters
        if self.spent > self._limit:
            raise failures.too_many_characters(self._limit)
