"""What lies where in CHORDWISE_HOME."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from chordwise.embedded import private_files
from chordwise.errors import ConfigurationError

# The address of a Unix socket holds 104 bytes on macOS and 108 on Linux, the final NUL included.
MAX_SOCKET_PATH_BYTES = 100
_LONGEST_SOCKET_NAME = ".s.PGSQL.5432"


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The folder of one embedded stack, and the paths in it."""

    path: Path

    @property
    def postgres(self) -> Path:
        """PostgreSQL's data."""
        return self.path / "postgres"

    @property
    def valkey(self) -> Path:
        """Valkey's data."""
        return self.path / "valkey"

    @property
    def logs(self) -> Path:
        """One log for each process."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """What describes the running stack; worth nothing once it is down."""
        return self.path / "run"

    @property
    def state_file(self) -> Path:
        """What the supervisor says about itself and its children."""
        return self.run / "stack.json"

    @property
    def lock_file(self) -> Path:
        """Locked by the supervisor for as long as it lives."""
        return self.run / "stack.lock"

    @property
    def last_used_file(self) -> Path:
        """Its time of change says when a command last needed the stack."""
        return self.run / "last_used"

    @property
    def requests(self) -> Path:
        """What commands ask of the running supervisor."""
        return self.run / "requests"

    @property
    def replies(self) -> Path:
        """What the supervisor answers."""
        return self.run / "replies"

    def log(self, name: str) -> Path:
        """Return the log of a process."""
        return self.logs / f"{name}.log"

    def prepare(self) -> None:
        """Create the folders that are missing, each for our eyes only.

        Raises:
            ConfigurationError: The home cannot be created or written to, or others can write to it.
        """
        for folder in (self.path, self.logs, self.run, self.requests, self.replies):
            private_files.make_folder(folder)
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"The folder {self.path} cannot be written to.",
                "Set CHORDWISE_HOME to a folder of your own.",
            )
        private_files.check_writers(self.path)

    def sockets(self) -> Path:
        """Return the folder for sockets: `run`, or one below the temporary folder.

        Raises:
            ConfigurationError: That folder belongs to somebody else.
        """
        if fits_socket(self.run):
            return self.run
        digest = hashlib.sha256(bytes(self.path)).hexdigest()[:16]
        name = f"chordwise-{os.geteuid()}-{digest}"
        # Made with mode 0700, and refused if somebody else made it: a public place is safe.
        places = (Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108 - see above
        folder = next((place / name for place in places if fits_socket(place / name)), None)
        if folder is None:
            raise ConfigurationError(
                f"The temporary folder {places[0]} has too long a path for a socket.",
                "Set CHORDWISE_HOME or TMPDIR to a shorter path.",
            )
        private_files.make_folder(folder)
        private_files.check_ownership(folder)
        return folder

    def discard_sockets(self) -> None:
        """Remove the folder for sockets where it lies outside the home and nothing uses it."""
        folder = self.sockets()
        if folder != self.run:
            with contextlib.suppress(OSError):
                folder.rmdir()


def fits_socket(folder: Path) -> bool:
    """Return whether sockets in the folder have an address that every client can express."""
    path = folder / _LONGEST_SOCKET_NAME
    # PostgreSQL's client library reads a comma as the end of one host and the start of the next.
    return len(bytes(path)) < MAX_SOCKET_PATH_BYTES and "," not in str(path)


def home_at(path: Path) -> Home:
    """Return the home at a path, made absolute so that every process means the same one."""
    return Home(path=path.expanduser().resolve())
